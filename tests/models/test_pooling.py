"""Pooling against values worked by hand."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np
import pytest

from vpns_jax.models.cpu import pooling


def max_pool(x: np.ndarray, **options: int) -> np.ndarray:
    return np.asarray(jax.jit(functools.partial(pooling.max_pool, **options))(x))


def value_and_gradient(
    function: Callable[[jax.Array], jax.Array], x: np.ndarray, cotangent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """In one program, because each operation would be one of its own."""

    def both(x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, pull = jax.vjp(function, x)
        return y, pull(cotangent)[0]

    return jax.device_get(jax.jit(both)(x, cotangent))


def test_padding_of_max_pool_never_wins() -> None:
    x = -np.arange(1, 17, dtype=np.float32).reshape(1, 4, 4, 1)
    pooled = max_pool(x, window=3, stride=2, padding=1)
    np.testing.assert_array_equal(pooled[0, :, :, 0], [[-1, -2], [-5, -6]])


def test_max_pool_leaves_out_windows_that_do_not_fit() -> None:
    x = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    np.testing.assert_array_equal(max_pool(x, window=2, stride=2)[0, :, :, 0], [[6, 8], [16, 18]])


@pytest.mark.slow
def test_the_first_maximum_of_a_window_gets_its_gradient() -> None:
    x = np.array([[1, 3, 3, 0], [3, 2, 0, 5]], np.float32).reshape(1, 2, 4, 1)
    cotangent = np.array([10, 20], np.float32).reshape(1, 1, 2, 1)
    y, gradient = value_and_gradient(functools.partial(pooling.max_pool, window=2, stride=2), x, cotangent)
    np.testing.assert_array_equal(y.ravel(), [3, 5])
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[0, 10, 0, 0], [0, 0, 0, 20]])


@pytest.mark.slow
@pytest.mark.parametrize(("window", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 1)])
@pytest.mark.parametrize("chunked", [False, True])
def test_max_pool_is_xlas(
    window: int, stride: int, padding: int, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chunked:
        monkeypatch.setattr(jax, "device_count", lambda: 1)
        monkeypatch.setattr(pooling, "POOL_BYTES", 3000)
    # There are few different values, so that ties occur.
    x = np.random.default_rng(0).integers(0, 5, (4, 9, 10, 3)).astype(np.float32)
    pads = ((padding, padding), (padding, padding))
    ours = functools.partial(pooling.max_pool, window=window, stride=stride, padding=padding)
    theirs = functools.partial(nn.max_pool, window_shape=(window, window), strides=(stride, stride), padding=pads)
    shape = jax.eval_shape(theirs, x).shape
    cotangent = np.random.default_rng(1).integers(-9, 9, shape).astype(np.float32)
    for actual, expected in zip(*(value_and_gradient(way, x, cotangent) for way in (ours, theirs)), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_max_pool_hands_on_what_is_not_a_number() -> None:
    x = np.array([[0, 0], [np.nan, 0]], np.float32).reshape(1, 2, 2, 1)
    assert np.isnan(max_pool(x, window=2, stride=2)).all()


@pytest.mark.parametrize("shape", [(0, 5, 5, 2), (2, 5, 5, 0)])
def test_max_pool_of_nothing_is_nothing(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    pool = functools.partial(pooling.max_pool, window=2, stride=2)
    assert jax.eval_shape(pool, np.zeros(shape, np.float32)).shape == (shape[0], 2, 2, shape[3])


def test_averaging_matrix_by_hand() -> None:
    # 4 -> 3: cells [0, 2), [1, 3), [2, 4).
    half = [[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.5, 0.5]]
    np.testing.assert_array_equal(pooling.averaging_matrix(4, 3), half)
    # 2 -> 3, an up-sampling: cells [0, 1), [0, 2), [1, 2).
    np.testing.assert_array_equal(pooling.averaging_matrix(2, 3), [[1, 0], [0.5, 0.5], [0, 1]])


def test_adaptive_avg_pool_of_both_axes() -> None:
    x = np.arange(8, dtype=np.float32).reshape(1, 2, 4, 1)
    pooled = np.asarray(jax.jit(pooling.adaptive_avg_pool, static_argnums=1)(x, 2))
    np.testing.assert_array_equal(pooled[0, :, :, 0], [[0.5, 2.5], [4.5, 6.5]])


def test_adaptive_avg_pool_to_the_same_size_changes_nothing() -> None:
    x = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    np.testing.assert_array_equal(pooling.adaptive_avg_pool(x, 2), x)
