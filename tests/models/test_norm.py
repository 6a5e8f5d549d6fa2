"""Batch normalization against values worked by hand, in every combination of train and mutable."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vpns_jax.models.norm import BatchNorm

# One channel over four positions: mean 3, biased variance 5, unbiased 20 / 3.
X = np.array([0, 2, 4, 6], np.float32).reshape(2, 2, 1, 1)
NORMALISED = (np.array([-3.0, -1.0, 1.0, 3.0]) / np.sqrt(5 + 1e-5)).reshape(2, 2, 1, 1)
VARIABLES = {
    "params": {"scale": jnp.array([2.0]), "bias": jnp.array([10.0])},
    "batch_stats": {"mean": jnp.array([1.0]), "var": jnp.array([4.0]), "count": jnp.int32(7)},
}


@functools.partial(jax.jit, static_argnames=("norm", "train", "mutable"))
def apply(norm: BatchNorm, x: Any, *, train: bool, mutable: bool = False) -> Any:
    """In one program: one operation after the other, each would be compiled."""
    return norm.apply(VARIABLES, x, train=train, mutable=["batch_stats"] if mutable else False)


def test_training_uses_the_batch_and_moves_the_statistics() -> None:
    y, updates = apply(BatchNorm(), X, train=True, mutable=True)
    np.testing.assert_allclose(y, 2 * NORMALISED + 10, rtol=1e-6)
    stats = updates["batch_stats"]
    np.testing.assert_allclose(stats["mean"], [0.9 * 1 + 0.1 * 3], rtol=1e-6)
    np.testing.assert_allclose(stats["var"], [0.9 * 4 + 0.1 * 20 / 3], rtol=1e-6)
    assert stats["count"] == 8


def test_training_with_frozen_statistics_uses_the_batch_all_the_same() -> None:
    y = apply(BatchNorm(), X, train=True)
    np.testing.assert_allclose(y, 2 * NORMALISED + 10, rtol=1e-6)


@pytest.mark.parametrize("mutable", [False, True])
def test_evaluation_uses_the_running_statistics_and_moves_nothing(mutable: bool) -> None:
    out = apply(BatchNorm(), X, train=False, mutable=mutable)
    y = out[0] if mutable else out
    np.testing.assert_allclose(y, 2 * (X - 1) / np.sqrt(4 + 1e-5) + 10, rtol=1e-6)
    if mutable:
        jax.tree.map(np.testing.assert_array_equal, out[1]["batch_stats"], VARIABLES["batch_stats"])


def test_initializing_in_train_mode_does_not_count_as_a_batch() -> None:
    stats = jax.jit(functools.partial(BatchNorm().init, train=True))(jax.random.key(0), X)["batch_stats"]
    assert (stats["mean"][0], stats["var"][0], stats["count"]) == (0, 1, 0)


def test_a_single_value_per_channel_moves_the_variance_towards_zero_not_nan() -> None:
    _, updates = apply(BatchNorm(), X[:1, :1], train=True, mutable=True)
    np.testing.assert_allclose(updates["batch_stats"]["var"], [3.6], rtol=1e-6)


def test_statistics_stay_float32_under_bfloat16() -> None:
    # bfloat16 cannot represent 256 + 1: statistics computed in it would lose the variance.
    x = np.array([256, 257], np.float32).reshape(1, 2, 1, 1)
    y, updates = apply(BatchNorm(jnp.bfloat16), x, train=True, mutable=True)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(updates["batch_stats"]["mean"], [0.9 + 25.65], rtol=1e-6)
    np.testing.assert_allclose(updates["batch_stats"]["var"], [3.6 + 0.05], rtol=1e-6)


def test_the_gradient_flows_through_the_batch_statistics() -> None:
    # sum over positions of a normalized batch is constant, so its gradient vanishes.
    gradient = jax.jit(jax.grad(lambda x: apply(BatchNorm(), x, train=True).sum()))(X)
    np.testing.assert_allclose(gradient, np.zeros(X.shape), atol=1e-5)


@pytest.mark.parametrize("mutable", [{"mutable": ["batch_stats"]}, {}])
def test_in_nnx_the_statistics_move_only_if_a_call_names_them(mutable: dict[str, list[str]]) -> None:
    """The recipe of docs/library.md; without `mutable`, they stand still without a word."""
    norm = nnx.bridge.lazy_init(nnx.bridge.ToNNX(BatchNorm(), rngs=nnx.Rngs(0)), X, train=False)
    y = norm(X, train=True, **mutable)
    np.testing.assert_allclose(y, NORMALISED, rtol=1e-6)
    moved = np.float32(0.3) if mutable else 0
    stats = {path[-1]: leaf for path, leaf in nnx.to_flat_state(nnx.state(norm, nnx.BatchStat))}
    np.testing.assert_allclose(stats["mean"][...], [moved], rtol=1e-6)
    assert stats["count"][...] == bool(mutable)
