"""A loss of scores: by hand, and equal to what the experiment's stage learns with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpns_jax import sparsity
from vpns_jax.errors import UserError
from vpns_jax.sparsity import Pattern
from vpns_jax.training.views import LearnedMask

# How the masks are found does not matter here.
pytestmark = pytest.mark.usefixtures("searched_by_sorting")
PARAMS = {"a": {"kernel": jnp.asarray([[1.0, -2.0], [3.0, 0.5]]), "bias": jnp.asarray([4.0, 5.0])}}


def weighted(params, factor, *, shift):
    """A loss with an auxiliary output."""
    total = jnp.sum(params["a"]["kernel"] * jnp.asarray([[1.0, 10.0], [100.0, 1000.0]])) + jnp.sum(params["a"]["bias"])
    return factor * total + shift, total


def test_by_hand():
    scores = {"a": {"kernel": jnp.asarray([[0.4, -0.1], [-0.3, 0.2]])}}

    @jax.jit
    def value_and_slope(params, scores):
        loss = sparsity.with_scores(weighted, params, 0.5)
        return jax.value_and_grad(loss, has_aux=True)(scores, 2.0, shift=1.0)

    (value, total), slope = value_and_slope(PARAMS, scores)
    # 1 and 3 * 100 are kept; biases are not masked.
    assert float(total) == 310
    assert float(value) == 621
    # sign(s) w dl/dw, of pruned weights, too.
    np.testing.assert_allclose(slope["a"]["kernel"], 2 * np.asarray([[1.0, 20.0], [-300.0, 500.0]]))


def test_it_is_what_an_experiment_learns_with():
    pattern = Pattern(sparsity.parse_granularity("channel"))
    scores = sparsity.first_scores(PARAMS, pattern=pattern)
    seen = sparsity.with_scores(lambda params: params, PARAMS, 0.5, pattern=pattern)(scores)
    groups = {"scores": {"a": {"kernel": scores["a"]["kernel"]}}, "pruned": 1, "weights": PARAMS}
    weights, gate = LearnedMask(pattern)(groups)
    expected = sparsity.apply(weights, gate)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, seen, expected))
    assert np.count_nonzero(seen["a"]["kernel"]) == 2


def test_all_weights_learn_where_the_largest_are_used():
    slope, total = jax.jit(jax.grad(sparsity.with_largest(weighted, 0.5), has_aux=True))(PARAMS, 1.0, shift=0.0)
    # -2 * 10 and 3 * 100 are used, and the biases; the gradient is that of all weights.
    assert float(total) == 289
    np.testing.assert_allclose(slope["a"]["kernel"], [[1.0, 10.0], [100.0, 1000.0]])


def test_first_scores_are_the_scaled_weights():
    scores = sparsity.first_scores(PARAMS)
    assert scores["a"]["bias"] is None
    # sqrt(6 / fan_in) w / max|w| with fan_in 2.
    np.testing.assert_allclose(scores["a"]["kernel"], 3**0.5 * PARAMS["a"]["kernel"] / 3, rtol=1e-6)
    # Equinox's layout is [out, in, ...]: fan_in is 6 here.
    scores = sparsity.first_scores({"weight": jnp.full((5, 2, 3), 0.5)})
    np.testing.assert_allclose(scores["weight"], np.ones((5, 2, 3)), rtol=1e-6)


def test_groups_of_weights_with_outputs_first_are_refused():
    """Their axes would be taken for others."""
    pattern = Pattern(sparsity.parse_granularity("channel"))
    with pytest.raises(UserError, match=r"channel cannot prune head/weight \[5, 2\]: an array called `weight` is"):
        sparsity.structured_mask({"head": {"weight": jnp.ones((5, 2))}}, 0.5, pattern)


@pytest.mark.parametrize(("density", "line"), [(0.0, "density is 0.0"), (1.5, "density is 1.5")])
def test_densities_are_checked_before_training(density, line):
    with pytest.raises(UserError, match=line):
        sparsity.with_scores(weighted, PARAMS, density)
