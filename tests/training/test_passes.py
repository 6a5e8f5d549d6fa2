"""One iteration of each stage: what changes, what must not change, and by how much."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.training import tiny
from vpns_jax import models, sparsity
from vpns_jax.training import passes
from vpns_jax.training.network import forward, predict

pytestmark = pytest.mark.usefixtures("searched_by_sorting")

KEY = jax.random.key(1)
# The stages that were traced.
TRACED = []

UPDATE = jax.jit(passes.update, static_argnums=(0, 1))


@functools.partial(jax.jit, static_argnums=0)
def _iterate(stage, state, batches):
    TRACED.append(stage)
    return passes.iterate(stage, state, batches, KEY)


def iterate(stage, state, batches=None):
    return _iterate(stage, state, batches or tiny.batches(stage))


@pytest.mark.slow
def test_prune_moves_scores_and_prompt_and_nothing_else():
    stage, state = tiny.begin()
    after, (metrics,) = iterate(stage, state)
    assert int(after.step) == 1
    assert set(after.learned) == {"scores", "prompt"}
    for group in after.learned:
        assert not tiny.same(after.learned[group], state.learned[group])
    assert tiny.same(after.mapping, state.mapping)
    assert tiny.same(stage.subnetwork(after).weights, tiny.variables()["params"])
    assert int(metrics.loss.count) == tiny.BATCH


@pytest.mark.slow
def test_scores_get_the_gradient_that_the_paper_gives_them():
    """ds = sign(s) * dL/dm, also for pruned weights."""
    stage, state = tiny.begin(optimizers={"scores": tiny.optimizer("sgd", 1.0, decay="none", momentum=0.0)})
    images, labels = tiny.batches(stage)[0]
    mask = sparsity.topk_mask(state.learned["scores"], 0.5)

    @jax.jit
    @jax.grad
    def gradient(mask):
        logits, _ = forward(
            stage.network,
            weights=state.frozen["weights"],
            mask=mask,
            batch_stats=state.batch_stats,
            prompt=state.learned["prompt"],
            images=images,
            mapping=state.mapping,
            train=True,
        )
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    mask = jax.device_get(mask)
    by_mask = jax.device_get(gradient(jax.tree.map(lambda keep: keep.astype(np.float32), mask)))
    after, _ = iterate(stage, state)
    before, now = jax.device_get((state.learned["scores"], after.learned["scores"]))
    moved = jax.tree.map(np.subtract, before, now)
    expected = jax.tree.map(lambda s, g: np.sign(s) * g, before, by_mask)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), moved, expected)
    pruned_gradient = jax.tree.map(lambda g, keep: np.abs(np.where(keep, 0, g)).max(), expected, mask)
    assert max(map(float, jax.tree.leaves(pruned_gradient))) > 1e-3


def test_retrain_moves_weights_and_prompt_under_a_fixed_mask():
    stage, state = tiny.begin("weights")
    after, _ = iterate(stage, state)
    assert not tiny.same(after.learned["weights"], state.learned["weights"])
    assert not tiny.same(after.learned["prompt"], state.learned["prompt"])
    assert tiny.same(stage.subnetwork(after).mask, stage.subnetwork(state).mask)


@pytest.mark.slow
def test_pruned_weights_only_decay():
    stage, state = tiny.begin("weights")
    after, _ = iterate(stage, state)
    before, after = jax.device_get((stage.subnetwork(state), after))
    kernel, keep = before.weights["conv1"]["kernel"], before.mask["conv1"]["kernel"]
    # In the first step, momentum is the gradient alone.
    decayed = after.learned["weights"]["conv1"]["kernel"][~keep] / kernel[~keep]
    # 1 - learning rate * weight decay.
    np.testing.assert_allclose(decayed, 1 - 0.1 * 1e-2, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("group", ["scores", "weights"])
def test_a_plain_pass_leaves_the_prompt_and_its_optimizer_alone(group):
    stage, state = tiny.begin(group, protocol="reference")
    _, plain = stage.passes
    state, _ = iterate(stage, state)  # After one step the momentum is not zero.
    after, _ = UPDATE(stage, plain, state, tiny.batches(stage)[1], KEY)
    assert tiny.same(after.learned["prompt"], state.learned["prompt"])
    assert tiny.same(after.opt_state.inner_states["prompt"], state.opt_state.inner_states["prompt"])
    assert not tiny.same(after.learned[group], state.learned[group])


@pytest.mark.slow
def test_the_reference_iteration_is_its_two_passes():
    stage, state = tiny.begin(protocol="reference")
    batches = tiny.batches(stage)
    after, metrics = iterate(stage, state, batches)
    assert len(metrics) == 2
    for i, pass_ in enumerate(stage.passes):
        state, seen = UPDATE(stage, pass_, state, batches[i], jax.random.fold_in(KEY, i))
        np.testing.assert_allclose(seen.loss.compute(), metrics[i].loss.compute(), rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        after.learned["scores"],
        state.learned["scores"],
    )


def test_without_a_prompt_the_reference_protocol_is_hydras_one_pass():
    blank = tiny.network("none", pad_size=0)
    for protocol, prompted in (("reference", False), ("paper", True)):
        (pass_,) = tiny.begin(protocol=protocol, network=blank)[0].passes
        assert (pass_.preparation.prompted, pass_.preparation.augmented) == (prompted, True)


# (whether the prompted pass updates the running statistics, whether the plain one does)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("choice", "moves"), [("update", (True, True)), ("prompted", (True, False)), ("frozen", (False, False))]
)
def test_batch_norm_choices(choice, moves):
    stage, _ = tiny.begin(protocol="reference", batch_norm=choice)
    # Of a stage, a pass reads only what does not depend on the choice.
    first, state = tiny.begin(protocol="reference")
    assert dataclasses.replace(stage, passes=first.passes) == first
    for pass_, batch, move in zip(stage.passes, tiny.batches(stage), moves, strict=True):
        after, _ = UPDATE(first, pass_, state, batch, KEY)
        assert tiny.same(after.batch_stats, state.batch_stats) is not move


def test_retraining_always_moves_the_statistics():
    stage, state = tiny.begin("weights", batch_norm="frozen")
    after, _ = iterate(stage, state)
    assert not tiny.same(after.batch_stats, state.batch_stats)


@pytest.mark.slow
def test_density_one_is_no_mask():
    """Also if another density was used before: no state of it remains."""
    stage, state = tiny.begin("weights", density=1.0)
    with_mask, _ = iterate(stage, state)
    without, _ = iterate(*tiny.begin("weights", mask={}))
    assert tiny.same(with_mask.learned, without.learned)

    stage, state = tiny.begin(density=0.25)
    iterate(stage, state)
    dense = dataclasses.replace(state, frozen={**state.frozen, "pruned": jnp.int32(0)})
    assert all(bool(leaf.all()) for leaf in jax.tree.leaves(stage.subnetwork(dense).mask))


@pytest.mark.slow
def test_one_compilation_serves_every_density():
    before = len(TRACED)
    for density in (0.9, 0.5, 0.1):
        stage, state = tiny.begin(density=density)
        after, _ = iterate(stage, state)
        kept = sparsity.selection.count(state.learned["scores"]) - int(state.frozen["pruned"])
        assert sum(int(leaf.sum()) for leaf in jax.tree.leaves(stage.subnetwork(after).mask)) == kept
    # None if another test has it.
    assert len(TRACED) - before <= 1


@pytest.mark.slow
def test_a_new_head_is_learned_beside_the_scores_and_never_masked():
    stage, state = tiny.begin(new_head=True)
    after, _ = iterate(stage, state)
    assert not tiny.same(after.learned["head"], state.learned["head"])
    network = stage.subnetwork(after)
    assert tiny.same(network.weights[models.HEAD], after.learned["head"])
    assert models.HEAD not in network.mask


def test_a_prompt_alone_leaves_the_network_alone():
    stage, state = tiny.begin("prompt")
    after, _ = iterate(stage, state)
    assert set(after.learned) == {"prompt"}
    assert not tiny.same(after.learned["prompt"], state.learned["prompt"])
    before, now = stage.subnetwork(state), stage.subnetwork(after)
    for part in ("weights", "mask", "batch_stats"):
        assert tiny.same(getattr(now, part), getattr(before, part))


def test_evaluation_ignores_what_prompts_do_not_touch():
    """A pad prompt of zeros changes nothing, and prediction uses running statistics."""
    stage, state = tiny.begin("weights")
    network, images = stage.subnetwork(state), tiny.split().images
    prompted = predict(stage.network, network, images, prompted=True)
    plain = predict(stage.network, network, images, prompted=False)
    np.testing.assert_allclose(prompted, plain, rtol=1e-5, atol=1e-6)
    # With running statistics the logits of an image do not depend on the other images of its batch.
    alone = predict(stage.network, network, images[:1], prompted=False)
    np.testing.assert_allclose(plain[:1], alone, rtol=1e-5, atol=1e-6)
    changed = dataclasses.replace(network, prompt=jax.tree.map(lambda x: x + 0.5, network.prompt))
    assert not np.allclose(predict(stage.network, changed, images, prompted=True), plain, atol=1e-3)
