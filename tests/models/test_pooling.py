"""Pooling against values worked by hand."""

import jax.numpy as jnp
import numpy as np

from vpns_jax.models import pooling


def test_padding_of_max_pool_never_wins() -> None:
    x = -jnp.arange(1.0, 17.0).reshape(1, 4, 4, 1)
    pooled = pooling.max_pool(x, window=3, stride=2, padding=1)[0, :, :, 0]
    np.testing.assert_array_equal(pooled, [[-1, -2], [-5, -6]])


def test_max_pool_leaves_out_windows_that_do_not_fit() -> None:
    x = jnp.arange(25.0).reshape(1, 5, 5, 1)
    np.testing.assert_array_equal(pooling.max_pool(x, window=2, stride=2)[0, :, :, 0], [[6, 8], [16, 18]])


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
