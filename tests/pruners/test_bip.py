"""BiP: its upper gradient, for lower levels with known solutions, and its two steps on the tiny network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import tiny
from vpns_jax import sparsity
from vpns_jax.training import passes
from vpns_jax.training.metrics import cross_entropy
from vpns_jax.training.network import forward

pytestmark = pytest.mark.slow

KEY = jax.random.key(3)


def test_upper_gradient_where_the_loss_is_linear():
    """For l(z) = a z the Hessian is zero and w*(m) = -m a / gamma; the formula is the exact derivative."""
    a, m, gamma = np.asarray([1, -2, 0.5], np.float32), np.asarray([1, 0.25, 0], np.float32), 0.7

    def upper(m):
        solution = -m * a / gamma
        return jnp.sum(a * m * solution)

    solution = -m * a / gamma
    ours, exact = jax.jit(lambda m: (sparsity.bilevel_gradient(solution, m, a, gamma), jax.grad(upper)(m)))(m)
    np.testing.assert_allclose(ours, exact, rtol=1e-6)
    # The first one by hand: d(-a^2 m^2 / gamma) / dm = -2 / 0.7.
    assert float(ours[0]) == pytest.approx(-2 / 0.7)


def test_upper_gradient_where_the_loss_is_quadratic():
    """For l(z) = c (z - t)^2 / 2, w*(m) = c m t / (c m^2 + gamma); the formula neglects the curvature of the loss."""
    c, t, m = np.asarray([[0.5, 2, 1], [1, -1, 2], [1, 1, 0.5]], np.float32)

    def solution(m, gamma):
        return c * m * t / (c * m**2 + gamma)

    def upper(m, gamma):
        return jnp.sum(c * (m * solution(m, gamma) - t) ** 2 / 2)

    @jax.jit
    def gradients(m, gamma):
        g = c * (m * solution(m, gamma) - t)
        return g, jax.grad(upper)(m, gamma), sparsity.bilevel_gradient(solution(m, gamma), m, g, gamma)

    errors = []
    for gamma in np.asarray([10, 100, 1000], np.float32):
        g, exact, ours = jax.device_get(gradients(m, gamma))
        # By the implicit function theorem, with the Hessian c of l in z: dw*/dm = -(g + c m w*) / (c m^2 + gamma).
        w = solution(m, gamma)
        np.testing.assert_allclose(exact, w * g - m * g * (g + c * m * w) / (c * m**2 + gamma), rtol=1e-4)
        errors.append(np.max(np.abs(ours - exact) / np.abs(exact)))
    # The relative error falls like 1 / gamma.
    np.testing.assert_allclose(np.asarray(errors[:-1]) / np.asarray(errors[1:]), 10, rtol=0.25)


UPDATE = jax.jit(passes.update, static_argnums=(0, 1))


def begin(**changes):
    """Makes the stage with the pretrained weights, their scaled scores and plain gradient steps."""
    plain = {"decay": "none", "momentum": 0.0}
    optimizers = {"scores": tiny.optimizer(learning_rate=1.0, **plain), "weights": tiny.optimizer(**plain)}
    return tiny.begin("both", optimizers=optimizers, **changes)


def test_the_gradient_through_the_mask_is_the_formulas():
    scores = {"a": jnp.asarray([1.0, -2.0, 0.5])}
    w, keep = {"a": jnp.asarray([2.0, -3.0, 0.5])}, {"a": jnp.asarray([True, False, True])}
    g = jnp.asarray([-1.0, -2.0, 4.0])

    def loss(scores, w):
        return jnp.sum(g * sparsity.bilevel(scores, w, keep, 2.0)["a"])

    by_scores, by_weights = jax.jit(jax.grad(loss, argnums=(0, 1)))(scores, w)
    # sign(s) (w - m g / gamma) g: (2 + 0.5) (-1), -(-3 - 0) (-2), (0.5 - 2) 4.
    np.testing.assert_allclose(by_scores["a"], [-2.5, -6, -6])
    # The upper level does not change the weights.
    np.testing.assert_array_equal(by_weights["a"], 0)


def test_the_upper_step_moves_scores_by_the_formula():
    stage, state = begin()
    _, upper = stage.passes
    scores, weights = state.learned["scores"], state.learned["weights"]
    mask = sparsity.prune_smallest(scores, state.frozen["pruned"])
    kernels = sparsity.subtree(weights, mask)
    images, labels = tiny.batches(stage)[0]

    def loss(z):
        logits, _ = forward(
            stage.network,
            weights=sparsity.overlay(weights, z),
            mask={},
            batch_stats=state.batch_stats,
            prompt=state.learned["prompt"],
            images=images,
            mapping=state.mapping,
            train=True,
        )
        return cross_entropy(logits=logits, labels=labels)

    @jax.jit
    def formula(scores, kernels, mask):
        g = jax.grad(loss)(sparsity.apply(kernels, mask))
        return g, jax.tree.map(lambda s, w, m, g: s - jnp.sign(s) * (w - m * g / 1.0) * g, scores, kernels, mask, g)

    g, expected = formula(scores, kernels, mask)
    after, _ = UPDATE(stage, upper, state, (images, labels), KEY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.learned["scores"], expected)
    assert tiny.same(after.learned["weights"], weights)
    assert not tiny.same(after.learned["prompt"], state.learned["prompt"])
    # Pruned weights get a gradient, too.
    assert np.abs(np.where(mask["conv1"]["kernel"], 0, g["conv1"]["kernel"])).max() > 1e-4


def test_the_lower_step_moves_the_kept_weights_and_nothing_else():
    stage, state = begin()
    lower, _ = stage.passes
    after, _ = UPDATE(stage, lower, state, tiny.batches(stage)[0], KEY)
    for group in ("scores", "prompt"):
        assert tiny.same(after.learned[group], state.learned[group])
    mask = stage.subnetwork(state).mask["conv1"]["kernel"]
    moved = np.asarray(after.learned["weights"]["conv1"]["kernel"] != state.learned["weights"]["conv1"]["kernel"])
    assert not moved[~np.asarray(mask)].any()
    assert moved[np.asarray(mask)].all()


def test_an_iteration_is_a_lower_pass_and_then_an_upper_one():
    stage, state = begin()
    first, second = tiny.batches(stage)
    after, metrics = jax.jit(passes.iterate, static_argnums=0)(stage, state, (first, second), KEY)
    assert len(metrics) == 2
    between, _ = UPDATE(stage, stage.passes[0], state, first, jax.random.fold_in(KEY, 0))
    expected, _ = UPDATE(stage, stage.passes[1], between, second, jax.random.fold_in(KEY, 1))
    for group in ("weights", "scores", "prompt"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            after.learned[group],
            expected.learned[group],
        )
    network = stage.subnetwork(after)
    assert sum(int((~leaf).sum()) for leaf in jax.tree.leaves(network.mask)) == int(state.frozen["pruned"])
    assert tiny.same(network.weights, after.learned["weights"])


def test_in_the_reference_protocol_each_level_has_both_passes():
    stage, _ = begin(protocol="reference")
    assert [(pass_.preparation.prompted, pass_.preparation.augmented) for pass_ in stage.passes] == [
        (True, False),
        (False, True),
    ] * 2
    assert [sorted(pass_.moves) for pass_ in stage.passes] == [["weights"]] * 2 + [["prompt", "scores"], ["scores"]]
