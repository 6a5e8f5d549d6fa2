"""Masks: exact counts, gradients by hand, and weights without a mask stay unchanged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpns_jax import sparsity
from vpns_jax.errors import UserError
from vpns_jax.sparsity import Pattern

SIX = {"a": jnp.array([0.1, -0.5, 0.3]), "b": jnp.array([[-0.2], [0.6], [0.4]])}


def kept(mask):
    return int(sum(leaf.sum() for leaf in jax.tree.leaves(mask)))


@pytest.mark.slow
def test_six_weights_by_hand():
    mask = sparsity.topk_mask(SIX, 0.5)
    assert mask["a"].tolist() == [False, True, False]
    assert mask["b"].tolist() == [[False], [True], [True]]
    assert sparsity.threshold(SIX, 3) == jnp.float32(0.3)


def test_density_one_keeps_all_even_zeros():
    zeros = jax.tree.map(np.zeros_like, jax.device_get(SIX))
    assert kept(sparsity.topk_mask(zeros, 1.0)) == 6
    assert sparsity.threshold(SIX, 0) == 0


def test_ties_are_pruned_in_the_order_of_the_tree():
    tied = {"a": jnp.array([1.0, -1.0, 2.0]), "b": jnp.array([[1.0], [0.5], [-1.0]])}
    mask = sparsity.prune_smallest(tied, 3)
    assert mask["a"].tolist() == [False, False, True]
    assert mask["b"].tolist() == [[True], [False], [True]]


def test_nan_is_pruned_first():
    tree = {"a": jnp.array([0.0, jnp.nan, -3.0]), "b": jnp.array([[-jnp.nan], [1.0], [-jnp.inf]])}

    def both(mask):
        return mask["a"].tolist(), mask["b"].ravel().tolist()

    assert both(jax.device_get(sparsity.prune_smallest(tree, 2))) == ([True, False, True], [False, True, True])
    assert both(jax.device_get(sparsity.prune_smallest(tree, 3))) == ([False, False, True], [False, True, True])
    # By sign, too: below minus infinity.
    assert both(jax.device_get(sparsity.prune_lowest(tree, 3))) == ([True, False, True], [False, True, False])


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["weight", "kernel", "channel", "2:4", "block:2x2"])
def test_groups_with_nan_are_pruned_first(granularity):
    shape = (4, 6) if granularity in ("2:4", "block:2x2") else (1, 1, 4, 6)
    pattern = Pattern(granularity=sparsity.parse_granularity(granularity))
    for last, keeps in ((np.nan, False), (99.0, True)):
        scores = np.arange(1, 25, dtype=np.float32).reshape(shape)
        scores[..., 3, 5] = last
        mask = np.asarray(sparsity.structured_mask({"w": jax.device_put(scores)}, 0.5, pattern)["w"])
        assert (mask[..., 3, 5] == keeps).all()


def test_what_was_pruned_stays_so_where_a_score_is_nan():
    scores = {"w": jnp.array([5.0, jnp.nan, 3.0, 2.0])}
    mask = {"w": jnp.array([False, True, True, True])}
    further = Pattern().select_further(scores, mask, 1)
    assert further["w"].tolist() == [False, True, True, True]
    assert Pattern().select_further(scores, mask, 2)["w"].tolist() == [False, False, True, True]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_is_pruned_stays_so_where_kept_scores_are_zero(dtype):
    scores = {"w": jnp.asarray([0.0, 3.0, 0.0, 2.0], dtype)}
    kept = {"w": jnp.asarray([True, False, False, True])}
    # The first weight is zero and kept, and comes before the third, which is zero and pruned.
    assert Pattern().select_further(scores, kept, 2)["w"].tolist() == [True, False, False, True]


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, 1e-45, np.inf]), min_size=20, max_size=20), st.floats(0.01, 1)
)
def test_exact_count_ties_included(values, density):
    x = np.array(values, np.float32)
    tree = {"a": x[:12].reshape(3, 4), "b": x[12:]}
    mask = sparsity.topk_mask(tree, density)
    assert kept(mask) == 20 - int((1 - density) * 20)
    flat = np.concatenate([np.asarray(mask["a"]).ravel(), np.asarray(mask["b"])])
    # Compared as bits, so that subnormal numbers are not flushed to zero.
    magnitude = np.abs(x).view(np.uint32)
    if not flat.all():
        assert magnitude[~flat].max() <= magnitude[flat].min()


@pytest.mark.parametrize("density", [0, -0.1, 1.01, float("nan")])
def test_density_out_of_range(density):
    """The error is the same for weights and for groups."""
    prune = (lambda: sparsity.topk_mask(SIX, density), lambda: sparsity.structured_mask(SIX, density, Pattern()))
    lines = []
    for attempt in (
        *prune,
        lambda: sparsity.pruned_count(SIX, density),
        lambda: sparsity.straight_through(SIX, density),
    ):
        with pytest.raises(UserError, match=f"^density is {density}; ") as caught:
            attempt()
        lines.append(str(caught.value))
    assert len(set(lines)) == 1


def test_straight_through_gradient_by_hand():
    """loss = sum c * w * m: its gradient with respect to a score is sign(s) * c * w, kept or not."""
    scores, w, c = jnp.array([0.1, -0.5, 0.3, 0.0]), jnp.array([2.0, 3.0, -4.0, 5.0]), jnp.array([1.0, 10.0, 2.0, 7.0])

    def loss(s):
        return jnp.sum(c * w * sparsity.straight_through({"s": s}, 0.5)["s"])

    value, gradient = jax.jit(jax.value_and_grad(loss))(scores)
    assert value == 10 * 3 + 2 * -4
    assert gradient.tolist() == [2.0, -30.0, -8.0, 0.0]


def test_straight_through_values_are_exactly_zero_or_one():
    scores = {"w": jax.random.normal(jax.random.key(0), (1000,)) * 1e-3}
    mask = jax.jit(lambda s: sparsity.straight_through(s, 0.3))(scores)["w"]
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert mask.sum() == 1000 - int(0.7 * 1000)


def test_apply_masks_what_is_named_and_nothing_else():
    weights = {"conv": {"kernel": jnp.array([1.0, 2.0]), "bias": jnp.array([3.0])}, "head": {"kernel": jnp.ones(2)}}
    masked = sparsity.apply(weights, {"conv": {"kernel": jnp.array([True, False])}})
    assert masked["conv"]["kernel"].tolist() == [1.0, 0.0]
    assert masked["conv"]["bias"] is weights["conv"]["bias"]
    assert masked["head"]["kernel"] is weights["head"]["kernel"]
    assert sparsity.apply(weights, {}) == weights


def test_apply_refuses_strangers():
    with pytest.raises(UserError, match="it names konv; the weights have conv; make the mask from these weights"):
        sparsity.apply({"conv": jnp.ones(2)}, {"konv": jnp.ones(2, bool)})
    with pytest.raises(UserError, match=r"at conv it has shape \(3,\), the weight \(2,\)"):
        sparsity.apply({"conv": jnp.ones(2)}, {"conv": jnp.ones(3, bool)})
    with pytest.raises(UserError, match="it names conv/kernel; the weights have conv"):
        sparsity.apply({"conv": jnp.ones(2)}, {"conv": {"kernel": jnp.ones(2, bool)}})


def test_density():
    assert sparsity.density({"a": jnp.array([True, False]), "b": jnp.array([False, False])}) == 0.25
    assert sparsity.density({}) == 1


def test_leveled_scores_by_hand():
    scores = {"a": jnp.asarray([1.0, -3.0]), "b": jnp.asarray([[0.5, 0.0], [-0.25, 0.25]]), "c": jnp.zeros(2)}
    # Sums 4, 1 and 0 of 8 scores: their mean is 5 / 8, and the layers' are 2, 1 / 4 and 0.
    leveled = jax.jit(sparsity.level)(scores)
    np.testing.assert_allclose(leveled["a"], np.asarray([1.0, -3.0]) * 5 / 16)
    np.testing.assert_allclose(leveled["b"], np.asarray([[0.5, 0.0], [-0.25, 0.25]]) * 5 / 2)
    np.testing.assert_array_equal(leveled["c"], [0.0, 0.0])


def test_scaled_init_by_hand():
    kernel = jnp.arange(-4.0, 2.0).reshape(1, 1, 3, 2)
    scores = sparsity.scaled_init({"k": kernel})["k"]
    np.testing.assert_allclose(scores, np.sqrt(6 / 3) * np.asarray(kernel) / 4, rtol=1e-6)
    assert (sparsity.scaled_init({"k": jnp.zeros((2, 2))})["k"] == 0).all()


def test_magnitude():
    assert sparsity.magnitude({"k": jnp.array([-2.0, 1.0])})["k"].tolist() == [2.0, 1.0]


def test_large_leaves_of_half_precision_are_leveled():
    scores = {"a": jnp.ones((256, 256), jnp.float16), "b": jnp.full((2, 2), 3, jnp.float16)}
    # The mean of all is 65,548 / 65,540; of float16 this is 1.
    leveled = sparsity.level(scores)
    assert all(leaf.dtype == jnp.float16 and bool((leaf == 1).all()) for leaf in leveled.values())


def test_scores_of_fisher_keep_small_weights_of_half_precision():
    w = {"a": jnp.full(2, 1e-4, jnp.float16)}
    score = sparsity.fisher(w, {"a": jnp.ones(2)})["a"]
    np.testing.assert_allclose(score, 0.5 * np.float32(np.float16(1e-4)) ** 2, rtol=1e-6)
