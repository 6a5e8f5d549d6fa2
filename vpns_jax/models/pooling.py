"""Pooling with torch's window arithmetic."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def max_pool(x: jax.Array, *, window: int, stride: int, padding: int = 0) -> jax.Array:
    """`torch.nn.functional.max_pool2d` of `[b, h, w, c]`.

    The padding never wins; a window that would reach beyond it is left out.
    """
    pad = (padding, padding)
    return nn.max_pool(x, (window, window), strides=(stride, stride), padding=(pad, pad))


def adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
    """`torch.nn.functional.adaptive_avg_pool2d` of `[b, h, w, c]` to `[b, size, size, c]`.

    Output cell i averages inputs `floor(i * n / size)` to `ceil((i + 1) * n / size)` (excluded); windows
    overlap where n is no multiple of `size`, and repeat inputs where n is smaller.
    """
    _, h, w, _ = x.shape
    if (h, w) == (size, size):
        return x
    rows, columns = (jnp.asarray(averaging_matrix(n, size), x.dtype) for n in (h, w))
    # A mean must not be rounded to the accelerator's fast matrix precision.
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x, precision=jax.lax.Precision.HIGHEST)


def averaging_matrix(n: int, size: int) -> np.ndarray:
    """The `[size, n]` float32 matrix of adaptive average pooling; rows sum to one."""
    matrix = np.zeros((size, n), np.float32)
    for i in range(size):
        start, end = i * n // size, -(-(i + 1) * n // size)
        matrix[i, start:end] = 1 / (end - start)
    return matrix
