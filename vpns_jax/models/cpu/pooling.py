"""Pooling with torch's window arithmetic."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vpns_jax.models.cpu import platforms
from vpns_jax.models.cpu.chunks import in_chunks

# How many bytes a chunk of the batch may read.
POOL_BYTES = 8 * 2**20


def max_pool(x: jax.Array, *, window: int, stride: int, padding: int = 0) -> jax.Array:
    """Maximum pooling, as `torch.nn.functional.max_pool2d` computes it.

    Padding is never the maximum, and windows that would reach beyond the padding are left out. The gradient goes to
    the first maximum of a window, in row-major order.

    Args:
      x: `[b, h, w, c]`, of a floating dtype.
      window: side of a window, > 0.
      stride: step in both directions, > 0.
      padding: width of the padding on each of the four sides, >= 0 and at most half of `window`.

    Returns:
      `[b, h_out, w_out, c]` in `x`'s dtype, with `h_out = (h + 2 * padding - window) // stride + 1`.
    """
    if platforms.traced_for() != "cpu":
        pad = (padding, padding)
        return nn.max_pool(x, (window, window), strides=(stride, stride), padding=(pad, pad))

    # XLA's gradient runs on one core of a CPU, and reads each window again.
    def pool(x: jax.Array) -> jax.Array:
        rows = _pool_axis(x, 2, window, stride, padding)
        return _pool_axis(lax.optimization_barrier(rows), 1, window, stride, padding)

    return in_chunks(pool, x, math.prod(x.shape[1:]), most=POOL_BYTES)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3, 4))
def _pool_axis(x: jax.Array, axis: int, window: int, stride: int, padding: int) -> jax.Array:
    """The maximum over windows along one axis."""
    return functools.reduce(jnp.maximum, _window_parts(x, axis, window, stride, padding, fill=-jnp.inf))


@_pool_axis.defjvp
def _pool_axis_jvp(
    axis: int, window: int, stride: int, padding: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    parts = functools.partial(_window_parts, axis=axis, window=window, stride=stride, padding=padding)
    y = _pool_axis(*primals, axis, window, stride, padding)
    first = jnp.full(y.shape, window, jnp.uint8)
    for i, part in reversed(list(enumerate(parts(*primals, fill=-jnp.inf)))):
        first = jnp.where(part == y, jnp.uint8(i), first)
    # The gradient keeps one byte for each output, and not the input.
    first = lax.optimization_barrier(first)
    chosen = [jnp.where(first == i, part, 0) for i, part in enumerate(parts(*tangents, fill=0))]
    return y, functools.reduce(jnp.add, chosen)


def _window_parts(x: jax.Array, axis: int, window: int, stride: int, padding: int, *, fill: float) -> list[jax.Array]:
    """The first elements of all windows along an axis, then the second elements, and so on."""
    pads = [(0, 0)] * x.ndim
    pads[axis] = (padding, padding)
    x = jnp.pad(x, pads, constant_values=fill)
    count = (x.shape[axis] - window) // stride + 1
    return [lax.slice_in_dim(x, i, i + (count - 1) * stride + 1, stride, axis) for i in range(window)]


def adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
    """Average pooling to a given size, as `torch.nn.functional.adaptive_avg_pool2d` computes it.

    Output cell i averages inputs `floor(i * n / size)` to `ceil((i + 1) * n / size)` (excluded). Windows overlap where
    n is no multiple of `size`, and repeat inputs where n is smaller than `size`.

    Args:
      x: `[b, h, w, c]`.
      size: height and width of the output.

    Returns:
      `[b, size, size, c]`.
    """
    _, h, w, _ = x.shape
    if (h, w) == (size, size):
        return x
    rows, columns = (jnp.asarray(averaging_matrix(n, size), x.dtype) for n in (h, w))
    # A mean must not be rounded to the accelerator's fast matrix precision.
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x, precision=jax.lax.Precision.HIGHEST)


def averaging_matrix(n: int, size: int) -> np.ndarray:
    """Makes the matrix of adaptive average pooling along one axis.

    Args:
      n: how many inputs lie along the axis, > 0.
      size: how many outputs, > 0.

    Returns:
      float32 `[size, n]`; rows sum to one.
    """
    matrix = np.zeros((size, n), np.float32)
    for i in range(size):
        start, end = i * n // size, -(-(i + 1) * n // size)
        matrix[i, start:end] = 1 / (end - start)
    return matrix
