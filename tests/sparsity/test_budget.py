"""Budgets: by hand, and the loosest threshold that fits, whatever the scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpns_jax import models, sparsity, trees
from vpns_jax.errors import UserError
from vpns_jax.sparsity import BudgetPattern, Term

# A chain: something reads the images and writes a, b reads a, and classes read b; something costs the same always.
TERMS = (Term("", "a", 12), Term("a", "b", 60), Term("b", "", 20), Term("", "", 8))
CHANNELS = (
    models.Channels((models.Writer("a"),), (models.Reader("b"),)),
    models.Channels((models.Writer("b"),), (models.Reader("head"),)),
)
PATTERN = BudgetPattern(channels=CHANNELS, terms=TERMS, target="macs")
SHAPES = {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 5))}


def kept(scores, share, **how):
    return {path: leaf.tolist() for path, leaf in trees.flatten(PATTERN.select(scores, share, **how)).items()}


def test_costs_by_hand():
    assert sparsity.cost(TERMS, {}) == 100
    assert sparsity.cost(TERMS, {"a": (2, 3), "b": (4, 5)}) == 8 + 32 + 16 + 8
    assert sparsity.cost(TERMS, {"a": (0, 3)}) == 20 + 8


def test_selections_by_hand():
    """In order go b's 0.1, a's 0.2, b's -0.3, a's 0.4, ...: 100, 84, 64, 52, 36 are left."""
    scores = {"a": jnp.array([0.4, 0.2, -0.9]), "b": jnp.array([0.1, -0.3, 0.5, 0.6, -0.7])}
    # 8 + 12 + 48 + 16 = 84; 8 + 8 + 32 + 16 = 64; 8 + 8 + 24 + 12 = 52; 8 + 4 + 12 + 12 = 36.
    assert kept(scores, 0.9) == {"a": [True] * 3, "b": [False, True, True, True, True]}
    assert kept(scores, 0.83) == {"a": [True, False, True], "b": [False, True, True, True, True]}
    assert kept(scores, 0.6) == {"a": [True, False, True], "b": [False, False, True, True, True]}
    assert kept(scores, 0.5) == {"a": [False, False, True], "b": [False, False, True, True, True]}
    # By their signs a's -0.9 goes first, then b's -0.7 and -0.3: 76, 64 and 52 are left.
    assert kept(scores, 0.55, signed=True) == {"a": [True, True, False], "b": [True, False, True, True, False]}


def test_of_equals_the_first_go():
    assert kept({"a": jnp.ones(3), "b": jnp.ones(5)}, 0.55)["a"] == [False, False, True]


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, -0.5, 0.5, 1.0, -2.0, 3.0]), min_size=8, max_size=8),
    share=st.floats(0.29, 0.99),
)
def test_the_loosest_threshold_that_fits(values, share):
    found = kept({"a": jnp.array(values[:3]), "b": jnp.array(values[3:])}, share)
    keep = np.concatenate([np.array(vector) for vector in found.values()])

    def left(keep):
        return sparsity.cost(TERMS, {"a": (int(keep[:3].sum()), 3), "b": (int(keep[3:].sum()), 5)}) / 100

    size = np.abs(values)
    assert left(keep) <= share
    assert not keep.any() or size[~keep].max() <= size[keep].min()
    # With the last one of those that went it would be too much.
    last = max(np.flatnonzero(~keep), key=lambda i: (size[i], i))
    with_last = keep.copy()
    with_last[last] = True
    assert left(with_last) > share * (1 - 2e-6)


def test_learned_scores_may_be_selected_in_a_compiled_step():
    scores = {"a": jnp.array([0.4, 0.2, -0.9]), "b": jnp.array([0.1, -0.3, 0.5, 0.6, -0.7])}
    traces = []

    @jax.jit
    def compiled(scores, share):
        traces.append(share)
        return PATTERN.select(scores, share)

    for share in (0.3, 0.5, 0.83):
        found = {path: leaf.tolist() for path, leaf in trees.flatten(compiled(scores, jnp.float32(share))).items()}
        assert found == kept(scores, share)
    assert len(traces) == 1


def test_a_further_selection_keeps_less_of_what_is_kept():
    scores = {"a": jnp.array([9.0, 0.0, 0.9]), "b": jnp.array([0.1, 0.3, 0.5, 0.6, 0.7])}
    first = {"a": jnp.array([False, True, True]), "b": jnp.array([False, True, True, True, True])}
    found = PATTERN.select_further(scores, first, 0.4)
    # Of the 64 that were left: a's zero goes, 44, then b's 0.3, 36.
    assert found["a"].tolist() == [False, False, True]
    assert found["b"].tolist() == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("pattern", "share", "message"),
    [
        # 8 + 4 + 4 + 4 = 20 are left of one channel in each.
        (PATTERN, 0.19, "target macs:0.19 cannot be reached: with one channel left in each of the 2 layers .* 0.2 of"),
        (PATTERN, 1.5, "density is 1.5"),
        (BudgetPattern(channels=CHANNELS, target="macs"), 0.5, "target macs: the terms cost nothing"),
        (BudgetPattern(allocation="erk", channels=CHANNELS, terms=TERMS, target="macs"), 0.5, "found erk"),
    ],
)
def test_what_cannot_be_reached_is_one_line(pattern, share, message):
    with pytest.raises(UserError, match=message) as caught:
        pattern.amount(SHAPES, share)
    assert "\n" not in str(caught.value)
    assert float(PATTERN.amount(SHAPES, 0.5)) == 0.5


@pytest.mark.parametrize("signed", [False, True])
def test_a_channel_whose_score_is_no_number_goes_first(signed):
    scores = {"a": jnp.array([0.4, 0.2, jnp.nan]), "b": jnp.array([0.1, 0.3, 0.5, 0.6, 0.7])}
    # Without one channel of `a` 8 + 8 + 40 + 20 = 76 are left.
    assert kept(scores, 0.8, signed=signed) == {"a": [True, True, False], "b": [True] * 5}


def test_the_whole_cost_keeps_every_channel():
    assert kept({"a": jnp.zeros(3), "b": jnp.ones(5)}, 1.0) == {"a": [True] * 3, "b": [True] * 5}
