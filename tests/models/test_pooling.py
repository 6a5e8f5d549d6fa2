"""Pooling against values worked by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpns_jax.models.cpu import pooling


def test_padding_of_max_pool_never_wins() -> None:
    x = -jnp.arange(1.0, 17.0).reshape(1, 4, 4, 1)
    pooled = pooling.max_pool(x, window=3, stride=2, padding=1)[0, :, :, 0]
    np.testing.assert_array_equal(pooled, [[-1, -2], [-5, -6]])


def test_max_pool_leaves_out_windows_that_do_not_fit() -> None:
    x = jnp.arange(25.0).reshape(1, 5, 5, 1)
    np.testing.assert_array_equal(pooling.max_pool(x, window=2, stride=2)[0, :, :, 0], [[6, 8], [16, 18]])


@pytest.mark.slow
def test_the_first_maximum_of_a_window_gets_its_gradient() -> None:
    x = jnp.array([[1.0, 3.0, 3.0, 0.0], [3.0, 2.0, 0.0, 5.0]]).reshape(1, 2, 4, 1)
    y, pull = jax.vjp(lambda x: pooling.max_pool(x, window=2, stride=2), x)
    np.testing.assert_array_equal(y.ravel(), [3, 5])
    (gradient,) = pull(jnp.array([10.0, 20.0]).reshape(y.shape))
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
    y, pull = jax.vjp(lambda x: pooling.max_pool(x, window=window, stride=stride, padding=padding), x)
    expected, pull_expected = jax.vjp(lambda x: nn.max_pool(x, (window, window), (stride, stride), pads), x)
    np.testing.assert_array_equal(y, expected)
    cotangent = np.random.default_rng(1).integers(-9, 9, y.shape).astype(np.float32)
    np.testing.assert_array_equal(pull(cotangent)[0], pull_expected(cotangent)[0])


def test_max_pool_hands_on_what_is_not_a_number() -> None:
    x = jnp.zeros((1, 2, 2, 1)).at[0, 1, 0, 0].set(jnp.nan)
    assert jnp.isnan(pooling.max_pool(x, window=2, stride=2)).all()


def test_averaging_matrix_by_hand() -> None:
    # 4 -> 3: cells [0, 2), [1, 3), [2, 4).
    half = [[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.5, 0.5]]
    np.testing.assert_array_equal(pooling.averaging_matrix(4, 3), half)
    # 2 -> 3, an up-sampling: cells [0, 1), [0, 2), [1, 2).
    np.testing.assert_array_equal(pooling.averaging_matrix(2, 3), [[1, 0], [0.5, 0.5], [0, 1]])


def test_adaptive_avg_pool_of_both_axes() -> None:
    x = jnp.arange(8.0).reshape(1, 2, 4, 1)
    pooled = pooling.adaptive_avg_pool(x, 2)[0, :, :, 0]
    np.testing.assert_array_equal(pooled, [[0.5, 2.5], [4.5, 6.5]])


def test_adaptive_avg_pool_to_the_same_size_changes_nothing() -> None:
    x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    np.testing.assert_array_equal(pooling.adaptive_avg_pool(x, 2), x)
