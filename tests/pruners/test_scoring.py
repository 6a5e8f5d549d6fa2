"""SNIP and GraSP against finite differences, explicit Hessians and values worked by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from tests.pruners import cells
from tests.training import tiny
from vpns_jax import sparsity
from vpns_jax.pruners import METHODS
from vpns_jax.pruners.any_model import mean_gradient, mean_hessian_vector
from vpns_jax.pruners.methods import scoring
from vpns_jax.sparsity import bilevel_gradient, connection_sensitivity, gradient_flow
from vpns_jax.training.stage import learn_scores

pytestmark = pytest.mark.slow


def test_scores_by_hand():
    w, g = {"a": jnp.asarray([2.0, -3.0, 0.5])}, {"a": jnp.asarray([-1.0, -2.0, 4.0])}
    np.testing.assert_allclose(connection_sensitivity(w, g)["a"], [2, 6, 2])
    np.testing.assert_allclose(gradient_flow(w, g)["a"], [-2, 6, 2])
    # (w - m g / gamma) g with gamma = 2: (2 + 0.5) (-1), (-3 - 0) (-2), (0.5 - 2) 4.
    mask = {"a": jnp.asarray([True, False, True])}
    np.testing.assert_allclose(bilevel_gradient(w, mask, g, 2.0)["a"], [-2.5, 6, -6])


def test_grasp_keeps_the_gradient_flow_of_a_quadratic():
    """For l = w A w / 2, g = A w and H g = A A w; |g|^2 without weight i is computed exactly and compared by hand."""
    a = jnp.asarray([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    w = jnp.asarray([1.0, -1.5, 1.0])
    scores = gradient_flow({"w": w}, {"w": a @ a @ w})["w"]
    # A w = (0.5, -0.5, 1), A A w = (0.5, 0, 1).
    np.testing.assert_allclose(scores, [0.5, 0.0, 1.0])

    def flow(w):
        return float(jnp.sum((a @ w) ** 2))

    # To first order in the removed part of weight i: -2 score.
    for i, score in enumerate(scores):
        less = w.at[i].multiply(1 - 1e-3)
        assert (flow(less) - flow(w)) / 1e-3 == pytest.approx(-2 * float(score), abs=0.02)


@pytest.fixture
def run(tmp_path):
    """Makes a problem with two batches and running statistics, so that the loss is a smooth function of 68 weights."""
    return cells.cell(tmp_path, "grasp", prune__batch_norm="frozen", scoring__batches=2, scoring__temperature=2.0)


@pytest.fixture
def problem(run):
    return run.problem()


def mean_loss(problem, source, temperature, flat, unravel):
    weights, loss = problem.pattern.put(source.weights, unravel(flat)), scoring.task_loss(problem)
    on = scoring.task_batches(problem, source, temperature=temperature)
    return jnp.mean(jnp.stack([loss(weights, batch) for batch in on]))


def raveled(tree):
    """The leaves in the order of `ravel_pytree`, by NumPy."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def gradient_and_product(problem, source, temperature):
    on = list(scoring.task_batches(problem, source, temperature=temperature))
    fixed = scoring.task_loss(problem), source.weights, problem.scored
    gradient = mean_gradient(*fixed, on, problem.pattern)
    return gradient, mean_hessian_vector(*fixed, gradient, on, problem.pattern)


def test_against_finite_differences_and_the_whole_hessian(problem):
    source, temperature = problem.dense(), 2.0
    flat, unravel = ravel_pytree(problem.prunable)
    loss = functools.partial(mean_loss, problem, source, temperature, unravel=unravel)
    some = np.asarray([0, 17, 47, 48, 67])  # The convolution, and the head's rows of mapped classes.
    flat = np.asarray(flat)
    both, steps = jax.jit(lambda x: (loss(x), jax.hessian(loss)(x))), 1e-2 * np.eye(flat.size, dtype=np.float32)[some]
    slopes = [float(both(flat + step)[0] - both(flat - step)[0]) / 2e-2 for step in steps]
    gradient, product = map(raveled, gradient_and_product(problem, source, temperature))
    np.testing.assert_allclose(gradient[some], slopes, atol=1e-3)
    expected = np.asarray(both(flat)[1]) @ gradient
    np.testing.assert_allclose(product, expected, rtol=1e-3, atol=1e-6)


def test_grasp_drops_what_adds_gradient_flow(run, problem):
    """Shrinking the pruned weights increases |g|^2 by the paper's formula; shrinking the kept ones decreases it."""
    source, temperature = problem.dense(), problem.options.temperature
    mask = METHODS["grasp"].prune(problem, run.runner).mask
    _, product = gradient_and_product(problem, source, temperature)
    scores = raveled(sparsity.gradient_flow(problem.prunable, product))
    kept = raveled(mask)
    assert float(scores[kept].min()) >= float(scores[~kept].max())
    assert float(scores[~kept].sum()) < 0 < float(scores[kept].sum())
    flat, unravel = ravel_pytree(problem.prunable)
    loss = functools.partial(mean_loss, problem, source, temperature, unravel=unravel)
    flow, flat = jax.jit(lambda x: jnp.sum(jax.grad(loss)(x) ** 2)), np.asarray(flat)
    for part in (kept, ~kept):
        # The step is so small that no ReLU switches, because the gradient jumps there.
        less, more = (flow((flat * (1 + sign * 1e-4 * part)).astype(np.float32)) for sign in (-1, 1))
        change = (float(less) - float(more)) / 2e-4
        np.testing.assert_allclose(change, -2 * scores[part].sum(), rtol=0.02)


def test_snip_scores_how_the_loss_changes_with_the_mask(run, problem):
    source = problem.dense()
    flat, unravel = ravel_pytree(problem.prunable)
    loss = functools.partial(mean_loss, problem, source, 1.0, unravel=unravel)
    by_mask = jax.jit(jax.grad(lambda m: loss(m * flat)))(jnp.ones_like(flat))
    expected = sparsity.topk_mask(unravel(by_mask), problem.density)
    assert tiny.same(METHODS["snip"].prune(problem, run.runner).mask, expected)


def test_batches_are_the_same_at_every_call_and_cover_the_data(tmp_path):
    run = cells.cell(tmp_path, "snip", scoring__batches=4)
    problem = run.problem()
    first, second = list(problem.batches(4)), list(problem.batches(4))
    assert len(first) == 4
    assert all(tiny.same(a[0], b[0]) for a, b in zip(first, second, strict=True))
    # Three batches contain each of the 24 images once (compared by labels); the fourth begins the next epoch.
    labels = np.concatenate([batch[1] for batch, _ in first[:3]])
    np.testing.assert_array_equal(np.bincount(labels), [8, 8, 8])
    assert not tiny.same(first[0][0], first[3][0])


def test_streamed_batches_serve_too(tmp_path):
    from tests.training.test_runner import streamed

    run = cells.cell(tmp_path, "snip", train=streamed(tiny.split()))

    problem = run.problem()
    first, second = list(problem.batches(4)), list(problem.batches(4))
    assert all(tiny.same(a[0], b[0]) for a, b in zip(first, second, strict=True))
    mask = METHODS["snip"].prune(problem, run.runner).mask
    assert sum(int(leaf.sum()) for leaf in jax.tree.leaves(mask)) == 34


@pytest.mark.parametrize("batch_norm", ["update", "prompted", "frozen"])
@pytest.mark.parametrize("protocol", ["paper", "reference"])
@pytest.mark.parametrize("name", ["snip", "snip+prompt"])
def test_batches_are_scored_in_the_mode_of_the_first_pass_that_learns_scores(tmp_path, name, protocol, batch_norm):
    # Protocol "paper" has one pass, prompted; of the two of "reference", the prompted one is first and needs a prompt.
    train = {"update": True, "prompted": (name, protocol) != ("snip", "reference"), "frozen": False}[batch_norm]
    problem = cells.cell(tmp_path, name, protocol=protocol, prune__batch_norm=batch_norm).problem()
    parts = (problem.network, problem.source, problem.scored, problem.prune, 1)
    stage, _ = learn_scores(*parts, pruned=problem.pruned(0.5), pattern=problem.pattern)
    assert scoring.task_loss(problem).train == stage.passes[0].train == train
