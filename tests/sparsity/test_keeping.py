"""`keep_mask`: pruned weights are exactly zero after any number of steps of any optimizer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from vpns_jax import sparsity
from vpns_jax.errors import UserError

STEPS = 4


@functools.partial(jax.jit, static_argnums=0)
def weights(dtype=jnp.float32):
    a, b, x = jax.random.split(jax.random.key(0), 3)
    return {
        "a": {"kernel": jax.random.normal(a, (6, 10), dtype), "bias": jnp.ones(10, dtype)},
        "b": {"kernel": jax.random.normal(b, (10, 2), dtype)},
    }, jax.random.normal(x, (8, 6), dtype)


def mask(params):
    keep = sparsity.topk_mask({"a": params["a"]["kernel"], "b": params["b"]["kernel"]}, 0.3)
    return {"a": {"kernel": keep["a"], "bias": None}, "b": {"kernel": keep["b"]}}


def loss(params, x):
    hidden = jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"][None])
    return jnp.mean((hidden @ params["b"]["kernel"] - 1) ** 2)


PARAMS, X = weights()
MASK = mask(PARAMS)
TEN = {
    "sgd": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(1e-2),
    "adamw": optax.adamw(optax.cosine_decay_schedule(1e-2, 10), weight_decay=0.1),
    "clipped": optax.chain(optax.clip_by_global_norm(0.01), optax.add_decayed_weights(0.1), optax.sgd(0.1, 0.9)),
    "lamb": optax.lamb(1e-2, weight_decay=0.1),
    "lion": optax.lion(1e-3),
    "rmsprop": optax.rmsprop(1e-2, momentum=0.9),
    "adagrad": optax.adagrad(1e-2),
    "adafactor": optax.adafactor(1e-2),
    "schedule_free": optax.contrib.schedule_free_adamw(1e-2, weight_decay=0.1),
    "multi_steps": optax.MultiSteps(optax.adamw(1e-2), 2),
}


def is_zero_where_pruned(params, keep=MASK):
    pairs = zip(jax.tree.leaves(keep), (params["a"]["kernel"], params["b"]["kernel"]), strict=True)
    return all(np.all(np.where(kept, 0, np.asarray(leaf)) == 0) for kept, leaf in pairs)


@pytest.fixture(scope="module")
def trained():
    """The weights after each step with each optimizer; one program runs them all."""
    every = {name: sparsity.keep_mask(tx, MASK) for name, tx in TEN.items()}

    @jax.jit
    def step(params, states):
        moved = {}
        for name, tx in every.items():
            # A gradient that is no number must not reach a pruned weight either.
            gradient = jax.grad(loss)(params[name], X)
            gradient["a"]["kernel"] = jnp.where(MASK["a"]["kernel"], gradient["a"]["kernel"], jnp.nan)
            updates, state = tx.update(gradient, states[name], params[name])
            moved[name] = optax.apply_updates(params[name], updates), state
        return {n: p for n, (p, _) in moved.items()}, {n: s for n, (_, s) in moved.items()}

    params, states, history = dict.fromkeys(every, PARAMS), {n: tx.init(PARAMS) for n, tx in every.items()}, []
    for _ in range(STEPS):
        params, states = step(params, states)
        history.append(params)
    return history, states


@pytest.mark.parametrize("name", TEN)
def test_pruned_weights_are_zero_after_every_step(trained, name):
    history, _ = trained
    assert all(is_zero_where_pruned(params[name]) for params in history)
    kept = history[-1][name]["a"]["kernel"][MASK["a"]["kernel"]]
    assert np.all(np.isfinite(kept))
    assert np.any(kept != PARAMS["a"]["kernel"][MASK["a"]["kernel"]])


def test_moments_know_only_kept_weights(trained):
    _, states = trained
    assert is_zero_where_pruned(states["adamw"].inner[0].mu)
    assert is_zero_where_pruned(states["adamw"].inner[0].nu)


def test_clipping_sees_only_kept_weights():
    tx = sparsity.keep_mask(optax.clip_by_global_norm(5.0), MASK)
    gradient = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1.0), PARAMS)
    updates, _ = jax.jit(tx.update)(gradient, tx.init(PARAMS), PARAMS)
    # 24 of 80 weights and 10 biases are left, so the norm is sqrt(34); with all it would be sqrt(90).
    assert updates["a"]["bias"] == pytest.approx(5 / 34**0.5)


def test_multi_steps_may_stand_outside_and_low_precision_inside():
    tx = optax.MultiSteps(sparsity.keep_mask(optax.adamw(1e-2, mu_dtype=jnp.bfloat16), MASK), 2)

    @jax.jit
    def step(params, state):
        def low(params):
            return loss(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params), X.astype(jnp.bfloat16))

        updates, state = tx.update(jax.grad(low)(params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for number in range(4):
        params, state = step(params, state)
        assert is_zero_where_pruned(params) == (number > 0)
    assert params["a"]["kernel"].dtype == jnp.float32


def test_weights_of_lower_precision_than_their_updates():
    params, _ = weights(jnp.bfloat16)
    tx = sparsity.keep_mask(optax.sgd(0.1), MASK)
    gradient = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params)
    updates, _ = jax.jit(tx.update)(gradient, tx.init(params), params)
    assert is_zero_where_pruned(optax.apply_updates(params, updates))


def test_a_nested_dict_of_the_masked_leaves_is_enough():
    part = {"a": {"kernel": MASK["a"]["kernel"]}}
    tx = sparsity.keep_mask(optax.sgd(0.1), part)

    @jax.jit
    def step(params, state):
        updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        return updates, optax.apply_updates(params, updates)

    updates, after = step(PARAMS, tx.init(PARAMS))
    assert np.all(updates["b"]["kernel"] == np.float32(-0.1))
    assert np.all((after["a"]["kernel"] != 0) == MASK["a"]["kernel"])


def test_a_restored_state_keeps_the_mask_that_was_saved(tmp_path):
    tx = sparsity.keep_mask(optax.adam(1e-2), MASK)
    with ocp.StandardCheckpointer() as files:
        files.save(tmp_path / "state", tx.init(PARAMS))
        files.wait_until_finished()
        other = sparsity.keep_mask(optax.adam(1e-2), jax.tree.map(jnp.logical_not, MASK))
        state = files.restore(tmp_path / "state", jax.eval_shape(other.init, PARAMS))
    # Bytes of [1, 10] and [10, 1] for masks of [6, 10] and [10, 2].
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(state.mask)) == 20
    updates, _ = other.update(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS)
    assert is_zero_where_pruned(optax.apply_updates(PARAMS, updates))


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (
            {"c": jnp.ones(3, bool)},
            "the mask is of another tree: it names c; the weights have a/bias, a/kernel, b/kernel",
        ),
        ({"a": {"bias": jnp.ones(3, bool)}}, r"at a/bias it has shape \(3,\), the weight \(10,\)"),
        ({"a": {"bias": jnp.ones(10)}}, "the mask at a/bias is float32; masks are bool"),
    ],
)
def test_a_mask_of_another_tree_is_refused(wrong, line):
    with pytest.raises(UserError, match=line):
        sparsity.keep_mask(optax.sgd(0.1), wrong).init(PARAMS)


def test_the_weights_must_be_given():
    tx = sparsity.keep_mask(optax.sgd(0.1), MASK)
    with pytest.raises(UserError, match=r"call tx\.update\(gradients, state, params\)"):
        tx.update(PARAMS, tx.init(PARAMS))


def test_a_compiled_init_does_not_pack_the_mask():
    """XLA would pack it while it compiles, in seconds a layer."""
    params = {"kernel": jnp.ones((4, 8))}
    tx = sparsity.keep_mask(optax.sgd(0.1), {"kernel": jnp.arange(32).reshape(4, 8) < 9})
    assert "name=pack" not in str(jax.make_jaxpr(tx.init)(params))
