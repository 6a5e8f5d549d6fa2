"""One iteration of each stage: what moves, what must not, and by how much."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.training import tiny
from vpns_jax import models, sparsity
from vpns_jax.training import steps
from vpns_jax.training.forward import forward

KEY = jax.random.key(1)


def iterate(task, state, fixed, batches=None, key=KEY):
    step = {"prune": steps.prune_step, "retrain": steps.retrain_step}[task.stage]
    return jax.jit(step, static_argnums=0)(task, state, fixed, batches or tiny.batches(task), key)


def test_prune_moves_scores_and_prompt_and_nothing_else():
    task = tiny.task()
    state, fixed = tiny.start(task)
    after, (metrics,) = iterate(task, state, fixed)
    assert int(after.step) == 1
    assert set(after.learned) == {"scores", "prompt"}
    for group in after.learned:
        assert not tiny.same(after.learned[group], state.learned[group])
    assert tiny.same(after.mapping, state.mapping)
    network = steps.subnetwork(after, fixed)
    assert tiny.same(network.weights, fixed.weights)
    assert float(metrics.count) == tiny.BATCH


def test_scores_get_the_gradient_that_the_paper_gives_them():
    """ds = sign(s) * dL/dm, m of pruned weights included."""
    rules = {"scores": tiny.rule("sgd", 1.0, decay="none", momentum=0.0), "prompt": tiny.rule()}
    task = tiny.task(rules=rules)
    state, fixed = tiny.start(task)
    images, labels = tiny.batches(task)[0]
    mask = sparsity.topk_mask(state.learned["scores"], 0.5)

    def loss(mask):
        logits, _ = forward(
            task.network,
            weights=fixed.weights,
            mask=mask,
            batch_stats=state.batch_stats,
            prompt=state.learned["prompt"],
            images=images,
            mapping=state.mapping,
            train=True,
        )
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    by_mask = jax.grad(loss)(jax.tree.map(lambda keep: keep.astype(jnp.float32), mask))
    after, _ = iterate(task, state, fixed)
    moved = jax.tree.map(jnp.subtract, state.learned["scores"], after.learned["scores"])
    expected = jax.tree.map(lambda s, g: jnp.sign(s) * g, state.learned["scores"], by_mask)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), moved, expected)
    pruned_gradient = jax.tree.map(lambda g, keep: jnp.abs(jnp.where(keep, 0, g)).max(), expected, mask)
    assert max(map(float, jax.tree.leaves(pruned_gradient))) > 1e-3


def test_retrain_moves_weights_and_prompt_under_a_fixed_mask():
    task = tiny.task("retrain")
    state, fixed = tiny.start(task)
    after, _ = iterate(task, state, fixed)
    assert not tiny.same(after.learned["weights"], state.learned["weights"])
    assert not tiny.same(after.learned["prompt"], state.learned["prompt"])
    assert tiny.same(steps.subnetwork(after, fixed).mask, fixed.mask)


def test_pruned_weights_only_decay():
    task = tiny.task("retrain", rules={"weights": tiny.rule(momentum=0.0), "prompt": tiny.rule()})
    state, fixed = tiny.start(task)
    after, _ = iterate(task, state, fixed)
    kernel, keep = state.learned["weights"]["conv1"]["kernel"], fixed.mask["conv1"]["kernel"]
    decayed = after.learned["weights"]["conv1"]["kernel"][~keep] / kernel[~keep]
    # 1 - learning rate * weight decay.
    np.testing.assert_allclose(decayed, 1 - 0.1 * 1e-2, rtol=1e-5)


@pytest.mark.parametrize("stage", ["prune", "retrain"])
def test_a_plain_pass_leaves_the_prompt_and_its_optimizer_alone(stage):
    task = tiny.task(stage, protocol="reference")
    state, fixed = tiny.start(task)
    _, plain = task.passes
    run_pass = {"prune": steps.prune_pass, "retrain": steps.retrain_pass}[stage]
    state, _ = iterate(task, state, fixed)  # So that momentum is not zero.
    after, _ = jax.jit(run_pass, static_argnums=(0, 1))(task, plain, state, fixed, tiny.batches(task)[1], KEY)
    assert tiny.same(after.learned["prompt"], state.learned["prompt"])
    assert tiny.same(after.opt_state.inner_states["prompt"], state.opt_state.inner_states["prompt"])
    group = "scores" if stage == "prune" else "weights"
    assert not tiny.same(after.learned[group], state.learned[group])


def test_the_reference_iteration_is_its_two_passes():
    task = tiny.task(protocol="reference")
    state, fixed = tiny.start(task)
    batches = tiny.batches(task)
    after, metrics = iterate(task, state, fixed, batches)
    assert len(metrics) == 2
    for i, one in enumerate(task.passes):
        run_pass = jax.jit(steps.prune_pass, static_argnums=(0, 1))
        state, seen = run_pass(task, one, state, fixed, batches[i], jax.random.fold_in(KEY, i))
        np.testing.assert_allclose(seen.loss, metrics[i].loss, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        after.learned["scores"],
        state.learned["scores"],
    )


def test_without_a_prompt_the_reference_protocol_is_hydras_one_pass():
    blank = tiny.network("none", pad_size=0)
    (one,) = tiny.task(protocol="reference", network=blank).passes
    assert one == steps.Pass(prompted=False, augmented=True)
    (one,) = tiny.task(protocol="paper", network=blank).passes
    assert one == steps.Pass(prompted=True, augmented=True)


# (does the prompted pass move the statistics, does the plain one)
@pytest.mark.parametrize(
    ("choice", "moves"), [("update", (True, True)), ("prompted", (True, False)), ("frozen", (False, False))]
)
def test_batch_norm_choices(choice, moves):
    task = tiny.task(protocol="reference", batch_norm=choice)
    state, fixed = tiny.start(task)
    for one, batch, move in zip(task.passes, tiny.batches(task), moves, strict=True):
        after, _ = jax.jit(steps.prune_pass, static_argnums=(0, 1))(task, one, state, fixed, batch, KEY)
        assert tiny.same(after.batch_stats, state.batch_stats) is not move


def test_retraining_always_moves_the_statistics():
    task = tiny.task("retrain", batch_norm="frozen")
    state, fixed = tiny.start(task)
    after, _ = iterate(task, state, fixed)
    assert not tiny.same(after.batch_stats, state.batch_stats)


def test_density_one_is_no_mask():
    """Also right after another density was in force: nothing of it is kept anywhere."""
    task = tiny.task("retrain")
    state, fixed = tiny.start(task, density=1.0)
    unmasked = dataclasses.replace(fixed, bits={})
    with_mask, _ = iterate(task, state, fixed)
    without, _ = iterate(task, state, unmasked)
    assert tiny.same(with_mask.learned, without.learned)

    prune = tiny.task()
    state, fixed = tiny.start(prune, density=0.25)
    iterate(prune, state, fixed)
    network = steps.subnetwork(state, dataclasses.replace(fixed, pruned=jnp.int32(0)))
    assert all(bool(leaf.all()) for leaf in jax.tree.leaves(network.mask))


def test_one_compilation_serves_every_density():
    task, traced = tiny.task(), []

    @jax.jit
    def step(state, fixed, batches):
        traced.append(1)
        return steps.prune_step(task, state, fixed, batches, KEY)

    for density in (0.9, 0.5, 0.1):
        state, fixed = tiny.start(task, density=density)
        after, _ = step(state, fixed, tiny.batches(task))
        kept = sparsity.selection.count(state.learned["scores"]) - int(fixed.pruned)
        assert sum(int(leaf.sum()) for leaf in jax.tree.leaves(steps.subnetwork(after, fixed).mask)) == kept
    assert len(traced) == 1


def test_a_new_head_is_learned_beside_the_scores_and_never_masked():
    rules = {"scores": tiny.rule("adam"), "prompt": tiny.rule(), "head": tiny.rule()}
    task = tiny.task(rules=rules)
    weights = tiny.variables()["params"]
    state, fixed = tiny.start(task, extra={"head": weights[models.HEAD]})
    del state.learned["scores"][models.HEAD]
    state = steps.dataclasses.replace(state, opt_state=steps.optim.joint(task.rules).init(state.learned))
    after, _ = iterate(task, state, fixed)
    assert not tiny.same(after.learned["head"], state.learned["head"])
    network = steps.subnetwork(after, fixed)
    assert tiny.same(network.weights[models.HEAD], after.learned["head"])
    assert models.HEAD not in network.mask


def test_evaluation_ignores_what_prompts_do_not_touch():
    """A zero pad prompt is no prompt at all, and prediction uses running statistics."""
    task = tiny.task("retrain")
    state, fixed = tiny.start(task)
    network, images = steps.subnetwork(state, fixed), tiny.split().images
    prompted = steps.predict(task.network, network, images, prompted=True)
    plain = steps.predict(task.network, network, images, prompted=False)
    np.testing.assert_allclose(prompted, plain, rtol=1e-5, atol=1e-6)
    # Running statistics: an image's logits do not depend on the others in its batch.
    alone = steps.predict(task.network, network, images[:1], prompted=False)
    np.testing.assert_allclose(plain[:1], alone, rtol=1e-5, atol=1e-6)
    changed = dataclasses.replace(network, prompt=jax.tree.map(lambda x: x + 0.5, network.prompt))
    assert not np.allclose(steps.predict(task.network, changed, images, prompted=True), plain, atol=1e-3)
