"""Masks of whole groups: expected masks by hand, exact numbers of groups, and one compilation for all densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sparsity.granular import ELEMENTS, SERVED, SHAPES, VALUES, grouped, kept_groups, pattern, tree
from tests.training import tiny
from vpns_jax import sparsity
from vpns_jax.sparsity import Pattern

# Every granularity selects in the same way, and other files of this folder test how.
pytestmark = pytest.mark.usefixtures("searched_by_sorting")

# --- by hand ---------------------------------------------------------------------------------------------------------


def test_kernels_by_hand():
    """The slices have the means 0.5, 1, 2.5 and 1.5."""
    conv = jnp.array([[[[1.0, -1.0], [2.0, 0.0]], [[0.0, 1.0], [-3.0, 3.0]]]])
    mask = sparsity.structured_mask({"k": conv}, 0.5, pattern("kernel"))["k"]
    assert mask[0, 0].tolist() == mask[0, 1].tolist() == [[False, False], [True, True]]


@pytest.mark.slow
def test_output_and_input_channels_by_hand():
    dense = jnp.array([[1.0, -2.0, 0.0], [0.5, 0.0, -4.0]])
    # The means are 0.75, 1, 2 by output and 1, 1.5 by input.
    assert sparsity.structured_mask({"k": dense}, 0.5, pattern("channel"))["k"].tolist() == [[False, True, True]] * 2
    mask = sparsity.structured_mask({"k": dense}, 0.5, pattern("input_channel"))["k"]
    assert mask.tolist() == [[False] * 3, [True] * 3]


@pytest.mark.slow
def test_groups_of_different_size_compare_by_the_mean_of_their_weights():
    scores = {"large": jnp.tile(jnp.array([[1.0, 2.0]]), (9, 1)), "small": jnp.array([[1.5, 1.25], [-1.5, 1.25]])}
    mask = sparsity.structured_mask(scores, 0.5, pattern("channel"))
    assert mask["large"][0].tolist() == [False, True]
    assert mask["small"][0].tolist() == [True, False]


def test_blocks_by_hand():
    dense = jnp.array([[1.0, 1.0, 9.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 3.0, 0.5, 0.5]])
    mask = sparsity.structured_mask({"k": dense}, 0.5, pattern("block:1x2"))["k"]
    # The means are 1, 4.5, 1, 0, 1.5, 0.5; of the two blocks of mean 1 the second is kept.
    assert mask.tolist() == [[False, False, True, True], [True, True, False, False], [True, True, False, False]]


def test_two_of_four_inputs_by_hand():
    dense = jnp.array([[1.0, 5.0], [-2.0, 5.0], [3.0, 5.0], [0.5, -5.0]] * 2)
    mask = sparsity.structured_mask({"k": dense}, 0.5, pattern("2:4"))["k"]
    # Of equal weights the first are dropped, as in all masks.
    assert mask.tolist() == [[False, False], [True, False], [True, True], [False, True]] * 2


def test_n_of_m_groups_inputs_at_one_place_and_output():
    conv = jnp.zeros((2, 1, 4, 2)).at[:, :, 2, :].set(1.0).at[1, 0, 2, 1].set(0.0).at[1, 0, 0, 1].set(-1.0)
    mask = sparsity.structured_mask({"k": conv}, 0.25, pattern("1:4"))["k"]
    assert (mask == (jnp.abs(conv) == 1)).all()


# --- properties ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("text", SERVED)
@settings(max_examples=25, deadline=None)
@given(values=VALUES, density=st.floats(0.1, 1))
def test_exactly_so_many_groups_are_kept_and_none_smaller_than_a_pruned_one(text, values, density):
    scores = tree(values, SERVED[text])
    total = sum(SERVED[text].values())
    mask = sparsity.structured_mask(scores, max(density, 0.2), pattern(text))
    assert sum(kept_groups(mask, text).values()) == total - int((1 - max(density, 0.2)) * total)
    means = np.concatenate([np.abs(grouped(scores[name]["kernel"], text)).mean(1) for name in scores])
    keep = np.concatenate([grouped(mask[name]["kernel"], text).all(1) for name in scores])
    if not keep.all():
        assert means[~keep].max() <= means[keep].min() + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("text", SERVED)
@settings(max_examples=15, deadline=None)
@given(values=VALUES, density=st.floats(0.25, 1))
def test_uniform_keeps_exactly_the_density_in_each_layer(text, values, density):
    mask = sparsity.structured_mask(tree(values, SERVED[text]), density, pattern(text, "uniform"))
    assert kept_groups(mask, text) == {name: n - int((1 - density) * n) for name, n in SERVED[text].items()}


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(values=VALUES, pair=st.sampled_from([(2, 4), (1, 4), (3, 4), (1, 2)]))
def test_every_m_weights_keep_exactly_n_of_the_largest(values, pair):
    n, m = pair
    scores = tree(values, SHAPES)
    mask = sparsity.structured_mask(scores, n / m, pattern(f"{n}:{m}"))
    for name in SHAPES:
        x, keep = (np.asarray(t[name]["kernel"]) for t in (scores, mask))
        *lead, rows, columns = x.shape
        split = (*lead, rows // m, m, columns)
        x, keep = np.abs(x.reshape(split)), keep.reshape(split)
        assert (keep.sum(-2) == n).all()
        assert (np.where(keep, np.inf, x).min(-2) <= np.where(keep, x, np.inf).min(-2)).all()
        assert (np.where(keep, 0, x).max(-2) <= np.where(keep, x, np.inf).min(-2)).all()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(values=VALUES, density=st.floats(0.1, 1))
def test_the_default_pattern_is_the_global_top_k(values, density):
    scores = tree(values, SHAPES)
    assert tiny.same(sparsity.structured_mask(scores, density, Pattern()), sparsity.topk_mask(scores, density))


@pytest.mark.slow
def test_bfloat16_and_any_tree():
    scores = [jnp.array([1.0, -3.0], jnp.bfloat16), (jnp.array(2.0),)]
    assert jax.tree.map(lambda m: m.tolist(), sparsity.structured_mask(scores, 0.6, Pattern())) == [
        [False, True],
        (True,),
    ]
    half = {"k": jnp.array([[1.0, -3.0], [2.0, 0.5]], jnp.bfloat16)}
    assert sparsity.structured_mask(half, 0.5, pattern("channel"))["k"].tolist() == [[False, True]] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "allocation", "densities"),
    [
        ("weight", "global", (0.1, 0.5, 1.0)),
        ("channel", "global", (0.3, 0.5, 1.0)),
        ("channel", "uniform", (0.3, 0.5, 1.0)),
        ("kernel", "erk", (0.2, 0.5, 1.0)),
    ],
)
def test_one_compilation_serves_every_density(text, allocation, densities):
    traces = []

    @jax.jit
    def prune(scores, pruned):
        traces.append(pruned)
        return sparsity.prune_groups(scores, pruned, pattern(text, allocation))

    scores = tree(np.arange(ELEMENTS), SERVED[text])
    kept = []
    for density in densities:
        pruned = sparsity.pruned_groups(pattern(text, allocation), scores, density)
        kept.append(sum(kept_groups(prune(scores, jax.tree.map(jnp.int32, pruned)), text).values()))
    assert len(traces) == 1
    assert kept[0] < kept[1] < kept[2] == sum(SERVED[text].values())
