"""Depthwise convolution: each channel is convolved with a kernel of its own.

XLA's CPU convolution takes a dozen times longer than the sum over the kernel's taps, which is used here instead
(docs/performance.md has the times). Accelerators use XLA's convolution.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vpns_jax.models.cpu import platforms
from vpns_jax.models.cpu.conv import crop_taps


def depthwise_conv2d(x: jax.Array, kernel: jax.Array, *, padding: int) -> jax.Array:
    """Cross-correlation as `torch.nn.functional.conv2d` computes it with stride 1 and a group for each channel.

    Args:
      x: images `[b, h, w, c]`.
      kernel: `[k, k, 1, c]`, same dtype as `x`.
      padding: zeros added on each of the four sides, >= 0.

    Returns:
      `[b, h_out, w_out, c]` with `h_out = h + 2 * padding - k + 1`.
    """
    if platforms.traced_for() != "cpu":
        return lax_depthwise_conv2d(x, kernel, padding=padding)
    return _sum_of_taps(x, kernel, padding=padding)


def lax_depthwise_conv2d(x: jax.Array, kernel: jax.Array, *, padding: int) -> jax.Array:
    """`depthwise_conv2d`, computed by XLA's own convolution.

    Args:
      x: see `depthwise_conv2d`.
      kernel: see `depthwise_conv2d`.
      padding: see `depthwise_conv2d`.

    Returns:
      See `depthwise_conv2d`.
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


# Jitted, so that layers of the same shapes are traced once.
@functools.partial(jax.jit, static_argnames="padding")
def _sum_of_taps(x: jax.Array, kernel: jax.Array, *, padding: int) -> jax.Array:
    kernel, pads = crop_taps(kernel, x.shape[1:3], stride=1, padding=padding)
    kh, kw = kernel.shape[:2]
    h, w = (n + sum(pad) - k + 1 for n, pad, k in zip(x.shape[1:3], pads, (kh, kw), strict=True))
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    terms = [x[:, i : i + h, j : j + w] * kernel[i : i + 1, j : j + 1] for i in range(kh) for j in range(kw)]
    return functools.reduce(jnp.add, terms)


class DepthwiseConv(nn.Module):
    """Depthwise convolution layer: parameters `kernel` `[k, k, 1, c]` and `bias` `[c]`.

    Parameters are float32; the computation runs in `dtype`.
    """

    kernel_size: int
    padding: int
    dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[b, h, w, c]` to `[b, h_out, w_out, c]` in `dtype`."""
        shape = (self.kernel_size, self.kernel_size, 1, x.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32)
        y = depthwise_conv2d(x.astype(self.dtype), kernel.astype(self.dtype), padding=self.padding)
        return y + bias.astype(self.dtype)[None, None, None, :]
