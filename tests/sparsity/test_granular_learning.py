"""Scores that are learned under every granularity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.sparsity.granular import kept_groups, pattern
from tests.training import tiny
from vpns_jax import models, sparsity

# Every granularity selects in the same way, and other files of this folder test how.
pytestmark = pytest.mark.usefixtures("searched_by_sorting")


@pytest.mark.slow
def test_a_groups_mean_score_moves_by_its_mean_mask_gradient():
    """The same update as with one mask variable for each group g: d mean|s| = sum_g dm / |g|."""
    scores, c = jnp.array([[1.0, -3.0], [2.0, 5.0]]), jnp.array([[1.0, 2.0], [-4.0, 6.0]])
    which = pattern("channel")

    def loss(s):
        return jnp.sum(c * sparsity.attach_gradient({"k": s}, sparsity.structured_mask({"k": s}, 0.5, which))["k"])

    value, gradient = jax.jit(jax.value_and_grad(loss))(scores)
    assert value == 2 + 6
    assert gradient.tolist() == [[1.0, -2.0], [-4.0, 6.0]]
    moved = jnp.abs(scores - 0.1 * gradient).mean(0) - jnp.abs(scores).mean(0)
    np.testing.assert_allclose(moved, -0.1 * c.mean(0), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "density", "exclude"),
    [
        ("weight", 0.5, ()),
        ("kernel", 0.5, ("head",)),
        ("channel", 0.5, ("head",)),
        ("input_channel", 0.5, ("conv1",)),
        ("2:4", 0.5, ("conv1",)),
        ("block:2x5", 0.5, ("conv1",)),
    ],
)
def test_a_step_of_learned_scores_under_every_granularity(text, density, exclude):
    """All scores get the gradient sign(s) * dL/dm; after the step, the mask keeps the same number of whole groups."""
    variables, data, which = tiny.variables(), tiny.split(), pattern(text)
    # So the ReLU of a channel without weights is on.
    variables["params"]["bn1"]["bias"] += 0.5
    images = data.images / 127.5 - 1.0
    scores = sparsity.scaled_init(models.prunable(variables["params"], exclude=exclude))
    pruned = sparsity.pruned_groups(which, scores, density)

    def loss(mask):
        logits = tiny.Tiny().apply({**variables, "params": sparsity.apply(variables["params"], mask)}, images)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), data.labels[:, None], 1))

    @jax.jit
    def step(scores):
        mask = sparsity.prune_groups(scores, pruned, which)
        gradient = jax.grad(lambda scores: loss(sparsity.attach_gradient(scores, mask)))(scores)
        by_mask = jax.grad(loss)(jax.tree.map(lambda keep: keep.astype(jnp.float32), mask))
        stepped = jax.tree.map(lambda s, g: s - 100.0 * g, scores, gradient)
        return mask, gradient, by_mask, sparsity.prune_groups(stepped, pruned, which)

    scores, before, gradient, by_mask, after = jax.device_get((scores, *step(scores)))
    jax.tree.map(
        lambda g, s, m: np.testing.assert_allclose(g, np.sign(s) * m, rtol=1e-5, atol=1e-8), gradient, scores, by_mask
    )
    hidden = [np.abs(g)[~keep] for g, keep in zip(*map(jax.tree.leaves, (gradient, before)), strict=True)]
    assert max(float(g.max(initial=0.0)) for g in hidden) > 1e-4
    assert not tiny.same(before, after)
    if text == "2:4":
        assert all((leaf.reshape(-1, 4, leaf.shape[-1]).sum(1) == 2).all() for leaf in jax.tree.leaves(after))
    else:
        assert sum(kept_groups(before, text).values()) == sum(kept_groups(after, text).values())
