"""Optimizers against values worked by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.training import tiny
from tests.training.tiny import LENGTH, optimizer
from vpns_jax.errors import UserError
from vpns_jax.training import optimizers
from vpns_jax.training.optimizers import Schedule


def run(rule, gradients, start=2.0):
    """Returns the values of a scalar, which starts at `start`, after each update."""
    transform = optimizers.make(rule, LENGTH)
    x = jnp.float32(start)
    state, values = transform.init(x), []
    for gradient in gradients:
        update, state = transform.update(jnp.float32(gradient), state, x)
        x = optax.apply_updates(x, update)
        values.append(float(x))
    return values


def test_sgd_with_coupled_decay():
    # v = g + wd x = 1.02; x = 2 - 0.1 * 1.02. Then v = 0.9 * 1.02 + (1 + 0.01 * 1.898).
    assert run(optimizer("sgd"), [1, 1]) == pytest.approx([1.898, 1.898 - 0.1 * (0.918 + 1.01898)], rel=1e-6)


def test_sgd_with_decoupled_decay():
    # v = g; x = 2 - 0.1 * (1 + 0.02). Then v = 1.9; x -= 0.1 * (1.9 + 0.01 * x).
    expected = [1.898, 1.898 - 0.1 * (1.9 + 0.01898)]
    assert run(optimizer("sgd", decay="decoupled"), [1, 1]) == pytest.approx(expected, rel=1e-6)


def test_no_decay_ignores_its_strength():
    assert run(optimizer("sgd", decay="none", weight_decay=9.0), [1]) == pytest.approx([1.9], rel=1e-6)


def test_adam_with_coupled_decay_turns_a_zero_gradient_into_a_full_step():
    """A trap of the released code: a parameter without a gradient shrinks by about the learning rate in each update."""
    # g = 0.02, and Adam's first step is the sign of the gradient.
    assert run(optimizer("adam"), [0]) == pytest.approx([1.9], rel=1e-5)
    assert run(optimizer("adam", decay="decoupled"), [0]) == pytest.approx([2 - 0.1 * 0.02], rel=1e-6)
    assert run(optimizer("adam", decay="none"), [0]) == [2.0]


def test_adam_by_hand():
    x, m, v, expected = 2.0, 0.0, 0.0, []
    for t, gradient in enumerate([0.5, -1.0, 0.25], start=1):
        g = gradient + 1e-2 * x
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x -= 0.1 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        expected.append(x)
    assert run(optimizer("adam"), [0.5, -1.0, 0.25]) == pytest.approx(expected, rel=1e-5)


# Three updates an epoch, four epochs, a learning rate of 0.1.
@pytest.mark.parametrize(
    ("schedule", "update", "expected"),
    [
        ("constant", 11, 0.1),
        ("cosine_epochs", 0, 0.1),
        ("cosine_epochs", 2, 0.1),
        ("cosine_epochs", 3, 0.1 * (1 + math.cos(math.pi / 4)) / 2),
        ("cosine_epochs", 6, 0.05),
        ("cosine_epochs", 12, 0.0),
        ("cosine_epochs", 30, 0.0),
        ("cosine_steps", 2, 0.1 * (1 + math.cos(math.pi / 6)) / 2),
        ("cosine_steps", 6, 0.05),
    ],
)
def test_schedules(schedule, update, expected):
    rate = optimizers.learning_rate(optimizer(schedule=schedule), LENGTH)(jnp.int32(update))
    assert float(rate) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.slow
def test_an_epoch_begins_with_its_own_rate_whatever_its_length():
    # They include numbers for which float32 rounds n * k * (1 / n) to less than k.
    for updates in (*range(1, 9), 41, 47, 61, 82, 94, 109, 115, 122, 351, 390):
        rate = optimizers.learning_rate(optimizer(schedule="cosine_epochs"), Schedule(30, updates))
        first = jnp.arange(30) * updates
        rates = jax.jit(jax.vmap(rate))(first)
        np.testing.assert_allclose(rates, 0.1 * (1 + np.cos(np.pi * np.arange(30) / 30)) / 2, rtol=1e-4, atol=1e-8)


def test_warmup_rises_from_the_first_update_to_its_end():
    rates = optimizers.learning_rate(optimizer(warmup_epochs=2.0), LENGTH)(jnp.arange(8))
    np.testing.assert_allclose(rates, 0.1 * np.minimum(np.arange(1, 9) / 6, 1), rtol=1e-6)


MADE = tuple(
    (group, optimizers.make(optimizer(name), LENGTH)) for group, name in (("scores", "adam"), ("prompt", "sgd"))
)
TREE = {"scores": {"a": jnp.ones(2)}, "prompt": jnp.full(2, 2.0)}


@pytest.mark.slow
def test_a_prompt_that_no_pass_moves_may_have_any_optimizer():
    """In the reference protocol, a network without a prompt has plain passes only."""
    rules = {"prompt": tiny.optimizer("adamw", schedule="cosine_steps", warmup_epochs=1.0)}
    stage, _ = tiny.begin("weights", network=tiny.network("none"), protocol="reference", optimizers=rules)
    assert [pass_.moves for pass_ in stage.passes] == [{"weights"}]


def test_each_group_follows_its_own_optimizer():
    joint = optimizers.joint(MADE)
    updates, _ = joint.update(TREE, joint.init(TREE), TREE)
    for group, alone in MADE:
        expected, _ = alone.update(TREE[group], alone.init(TREE[group]), TREE[group])
        jax.tree.map(np.testing.assert_array_equal, updates[group], expected)


def test_a_group_that_is_not_active_keeps_values_and_state():
    joint, half = optimizers.joint(MADE), optimizers.joint(MADE, frozenset({"scores"}))
    _, state = joint.update(TREE, joint.init(TREE), TREE)
    updates, after = half.update(TREE, state, TREE)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    np.testing.assert_array_equal(updates["prompt"], 0)
    jax.tree.map(np.testing.assert_array_equal, after.inner_states["prompt"], state.inner_states["prompt"])
    moved, _ = joint.update(TREE, state, TREE)
    jax.tree.map(np.testing.assert_array_equal, updates["scores"], moved["scores"])


def test_groups_must_be_those_of_the_rules():
    with pytest.raises(ValueError, match=r"\['scores'\] are not those of the optimizer, \['prompt', 'scores'\]"):
        optimizers.joint(MADE).init({"scores": TREE["scores"]})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "rmspropp", "rmspropp.*adam, sgd, .*rmsprop"),
        ("decay", "l1", "l1.*coupled, decoupled, none"),
        ("schedule", "step", "step.*cosine_epochs, cosine_steps, constant"),
        ("learning_rate", -0.1, "learning_rate is -0.1"),
        ("learning_rate", float("nan"), "learning_rate is nan"),
        ("weight_decay", float("inf"), "weight_decay is inf"),
        ("momentum", 1.0, r"momentum is 1.0; it must lie in \[0, 1\)"),
        ("clip_norm", -1.0, "clip_norm is -1.0"),
        ("arguments", {"b1": 0.5}, "arguments are .*sgd takes none"),
    ],
)
def test_bad_optimizers(field, value, message):
    with pytest.raises(UserError, match=message):
        optimizer(**{field: value})


@pytest.mark.slow
def test_any_optimizer_of_optax_by_its_name():
    """An optimizer of optax gets the scheduled rate, its arguments and, if it has one, the configured weight decay."""
    gradients = [0.5, -1.0, 0.25, 2.0]
    schedule = optax.cosine_decay_schedule(0.1, 4 * 3)
    cases = {
        "lion": ({"b1": 0.8}, optax.lion(schedule, b1=0.8, weight_decay=0.0)),
        "adamw": ({}, optax.adamw(schedule, weight_decay=0.0)),
        "rmsprop": ({"decay": 0.5}, optax.rmsprop(schedule, decay=0.5)),
    }
    for name, (arguments, expected) in cases.items():
        rule = optimizer(name, decay="none", schedule="cosine_steps", arguments=arguments)
        assert run(rule, gradients) == pytest.approx(by_optax(expected, gradients), rel=1e-6)
    decayed = optimizer("adamw", decay="decoupled", schedule="cosine_steps")
    expected = optax.adamw(schedule, weight_decay=1e-2)
    assert run(decayed, gradients) == pytest.approx(by_optax(expected, gradients), rel=1e-6)
    # 2 - 0.1 sign(g + 0.01 x), twice.
    assert run(optimizer("sign_sgd"), [-0.01, -0.01]) == pytest.approx([1.9, 1.8], rel=1e-6)


def by_optax(transformation, gradients, start=2.0):
    x = jnp.float32(start)
    state, values = transformation.init(x), []
    for gradient in gradients:
        update, state = transformation.update(jnp.float32(gradient), state, x)
        x = optax.apply_updates(x, update)
        values.append(float(x))
    return values


@pytest.mark.slow
@pytest.mark.parametrize("name", optimizers.known())
def test_every_known_optimizer_makes_a_step(name):
    value = run(optimizer(name, schedule="cosine_steps", decay="coupled"), [1.0])[0]
    assert math.isfinite(value)
    assert value < 2.0


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("lion", {"arguments": {"beta": 0.9}}, "arguments hold 'beta'; lion takes b1, b2, "),
        ("rmsprop", {"decay": "decoupled"}, "decay is 'decoupled', which rmsprop does not have; it allows coupled"),
        ("adamw", {"arguments": {"b1": "fast"}}, "adamw cannot be made of arguments"),
        ("lbfgs", {}, "unknown optimizer 'lbfgs'"),
    ],
)
def test_what_optax_refuses_is_one_line(name, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        optimizer(name, **changes)
    assert "\n" not in str(caught.value)


def test_clipping_cuts_a_groups_norm():
    # |(3, 4)| = 5 is scaled down to 1: (0.6, 0.8).
    transformation = optimizers.make(optimizer("sgd", decay="none", momentum=0.0, clip_norm=1.0), LENGTH)
    x = jnp.zeros(2)
    updates, _ = transformation.update(jnp.asarray([3.0, 4.0]), transformation.init(x), x)
    np.testing.assert_allclose(updates, [-0.06, -0.08], rtol=1e-6)


def test_equal_optimizers_are_one_transformation():
    """Equal optimizers give the same object, so that they share compiled programs."""
    assert optimizers.make(optimizer("adam"), LENGTH) is optimizers.make(optimizer("adam"), Schedule(4, 3))
    assert optimizers.make(optimizer("adam"), LENGTH) is not optimizers.make(optimizer("adam", 0.2), LENGTH)
    mine = optax.adam(1e-3)
    assert optimizers.make(mine, LENGTH) is mine


def test_a_constant_rate_knows_no_length_so_stages_of_all_lengths_share_their_programs():
    def shared(**changes):
        rule = optimizer(**changes)
        return optimizers.make(rule, Schedule(2, 3)) is optimizers.make(rule, Schedule(5, 3))

    assert shared()
    assert not shared(warmup_epochs=1.0)
    assert not shared(schedule="cosine_epochs")
