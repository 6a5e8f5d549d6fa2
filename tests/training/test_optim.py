"""Optimizers against sums done by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.training.tiny import rule
from vpns_jax.errors import UserError
from vpns_jax.training import optim


def run(one, gradients, start=2.0):
    """The value after each update of a scalar that starts at 2."""
    transform = optim.transform(one)
    x = jnp.float32(start)
    state, values = transform.init(x), []
    for gradient in gradients:
        update, state = transform.update(jnp.float32(gradient), state, x)
        x = optax.apply_updates(x, update)
        values.append(float(x))
    return values


def test_sgd_with_coupled_decay():
    # v = g + wd x = 1.02; x = 2 - 0.1 * 1.02. Then v = 0.9 * 1.02 + (1 + 0.01 * 1.898).
    assert run(rule("sgd"), [1, 1]) == pytest.approx([1.898, 1.898 - 0.1 * (0.918 + 1.01898)], rel=1e-6)


def test_sgd_with_decoupled_decay():
    # v = g; x = 2 - 0.1 * (1 + 0.02). Then v = 1.9; x -= 0.1 * (1.9 + 0.01 * x).
    expected = [1.898, 1.898 - 0.1 * (1.9 + 0.01898)]
    assert run(rule("sgd", decay="decoupled"), [1, 1]) == pytest.approx(expected, rel=1e-6)


def test_no_decay_ignores_its_strength():
    assert run(rule("sgd", decay="none", weight_decay=9.0), [1]) == pytest.approx([1.9], rel=1e-6)


def test_adam_with_coupled_decay_turns_a_zero_gradient_into_a_full_step():
    """The released code's trap: whatever gets no gradient decays by about the learning rate an update."""
    # g = 0.02, and a first Adam step is the gradient's sign.
    assert run(rule("adam"), [0]) == pytest.approx([1.9], rel=1e-5)
    assert run(rule("adam", decay="decoupled"), [0]) == pytest.approx([2 - 0.1 * 0.02], rel=1e-6)
    assert run(rule("adam", decay="none"), [0]) == [2.0]


def test_adam_by_hand():
    x, m, v, expected = 2.0, 0.0, 0.0, []
    for t, gradient in enumerate([0.5, -1.0, 0.25], start=1):
        g = gradient + 1e-2 * x
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x -= 0.1 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        expected.append(x)
    assert run(rule("adam"), [0.5, -1.0, 0.25]) == pytest.approx(expected, rel=1e-5)


# Three updates an epoch, four epochs, a rate of 0.1.
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
    rate = optim.learning_rate(rule(schedule=schedule))(jnp.int32(update))
    assert float(rate) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_an_epoch_begins_with_its_own_rate_whatever_its_length():
    # Among them those whose reciprocal, times a multiple of them, falls short of a whole number in float32.
    for updates in (*range(1, 9), 41, 47, 61, 82, 94, 109, 115, 122, 351, 390):
        one = rule(schedule="cosine_epochs", epochs=30, updates_per_epoch=updates)
        first = jnp.arange(30) * updates
        found = jax.jit(jax.vmap(optim.learning_rate(one)))(first)
        np.testing.assert_allclose(found, 0.1 * (1 + np.cos(np.pi * np.arange(30) / 30)) / 2, rtol=1e-4, atol=1e-8)


def test_warmup_rises_from_the_first_update_to_its_end():
    rates = optim.learning_rate(rule(warmup_epochs=2.0))(jnp.arange(8))
    np.testing.assert_allclose(rates, 0.1 * np.minimum(np.arange(1, 9) / 6, 1), rtol=1e-6)


RULES = (("scores", rule("adam")), ("prompt", rule("sgd")))
TREE = {"scores": {"a": jnp.ones(2)}, "prompt": jnp.full(2, 2.0)}


def test_each_group_follows_its_own_rule():
    joint = optim.joint(RULES)
    updates, _ = joint.update(TREE, joint.init(TREE), TREE)
    for group, one in RULES:
        alone = optim.transform(one)
        expected, _ = alone.update(TREE[group], alone.init(TREE[group]), TREE[group])
        jax.tree.map(np.testing.assert_array_equal, updates[group], expected)


def test_a_group_that_is_not_active_keeps_values_and_state():
    joint, half = optim.joint(RULES), optim.joint(RULES, frozenset({"scores"}))
    _, state = joint.update(TREE, joint.init(TREE), TREE)
    updates, after = half.update(TREE, state, TREE)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    np.testing.assert_array_equal(updates["prompt"], 0)
    jax.tree.map(np.testing.assert_array_equal, after.inner_states["prompt"], state.inner_states["prompt"])
    moved, _ = joint.update(TREE, state, TREE)
    jax.tree.map(np.testing.assert_array_equal, updates["scores"], moved["scores"])


def test_groups_must_be_those_of_the_rules():
    with pytest.raises(ValueError, match=r"\['scores'\] are not those of the optimizer, \['prompt', 'scores'\]"):
        optim.joint(RULES).init({"scores": TREE["scores"]})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimizer", "rmsprop", "rmsprop.*adam, sgd"),
        ("decay", "l1", "l1.*coupled, decoupled, none"),
        ("schedule", "step", "step.*cosine_epochs, cosine_steps, constant"),
        ("learning_rate", -0.1, "learning_rate is -0.1"),
        ("learning_rate", float("nan"), "learning_rate is nan"),
        ("weight_decay", float("inf"), "weight_decay is inf"),
        ("momentum", 1.0, r"momentum is 1.0; it must lie in \[0, 1\)"),
    ],
)
def test_bad_rules(field, value, message):
    with pytest.raises(UserError, match=message):
        rule(**{field: value})
