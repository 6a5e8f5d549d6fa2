"""Convolution with torch's padding: one function, three ways to compute it.

XLA's CPU convolution is slow where images are small, above all its kernel gradient: written as patches and
one matrix product the same step takes a half to a third of the time. Accelerators always get the real thing.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Up to this many output positions an image, patches and a matrix product beat XLA's CPU convolution
# (forward and backward); above it the copies of the input cost more than they save.
MAX_IM2COL_POSITIONS = 256

# torchvision's ResNet and VGG: normal with variance 2 / fan_out (He et al. 2015).
kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv2d(x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0) -> jax.Array:
    """Cross-correlation, as `torch.nn.functional.conv2d` computes it.

    Args:
      x: images `[b, h, w, c]`.
      kernel: `[kh, kw, c, o]`, same dtype as `x`.
      stride: step in both directions, >= 1.
      padding: zeros added on each of the four sides, >= 0.

    Returns:
      `[b, h_out, w_out, o]` with `h_out = (h + 2 * padding - kh) // stride + 1`.
    """
    if jax.default_backend() != "cpu":
        return lax_conv2d(x, kernel, stride=stride, padding=padding)
    kh, kw, _, _ = kernel.shape
    _, h, w, _ = x.shape
    h_out, w_out = ((n + 2 * padding - k) // stride + 1 for n, k in ((h, kh), (w, kw)))
    if padding == 0 and (kh == kw == 1 or (kh == kw == stride and h % kh == 0 and w % kw == 0)):
        return tiled_conv2d(x, kernel, stride=stride)
    if h_out * w_out <= MAX_IM2COL_POSITIONS:
        return im2col_conv2d(x, kernel, stride=stride, padding=padding)
    return lax_conv2d(x, kernel, stride=stride, padding=padding)


def lax_conv2d(x: jax.Array, kernel: jax.Array, *, stride: int, padding: int) -> jax.Array:
    """`conv2d` by XLA's own convolution."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def im2col_conv2d(x: jax.Array, kernel: jax.Array, *, stride: int, padding: int) -> jax.Array:
    """`conv2d` as one matrix product over shifted slices of the input."""
    kh, kw, c, o = kernel.shape
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    b, h, w, _ = x.shape
    h_out, w_out = (h - kh) // stride + 1, (w - kw) // stride + 1
    shifted = [
        jax.lax.slice(
            x,
            (0, i, j, 0),
            (b, i + (h_out - 1) * stride + 1, j + (w_out - 1) * stride + 1, c),
            (1, stride, stride, 1),
        )
        for i in range(kh)
        for j in range(kw)
    ]
    patches = jnp.concatenate(shifted, axis=-1)
    return patches @ kernel.reshape(kh * kw * c, o)


def tiled_conv2d(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    """`conv2d` without padding whose windows do not overlap: 1x1 kernels, or tiles as large as the stride."""
    kh, kw, c, o = kernel.shape
    if kh == 1:
        return x[:, ::stride, ::stride, :] @ kernel.reshape(c, o)
    b, h, w, _ = x.shape
    tiles = x.reshape(b, h // kh, kh, w // kw, kw, c).transpose(0, 1, 3, 2, 4, 5)
    return tiles.reshape(b, h // kh, w // kw, kh * kw * c) @ kernel.reshape(kh * kw * c, o)


class Conv(nn.Module):
    """Convolution layer: parameters `kernel` `[k, k, c, features]` and, if asked for, `bias` `[features]`.

    Parameters are float32; the computation runs in `dtype`.
    """

    features: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = kaiming_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[b, h, w, c]` to `[b, h_out, w_out, features]` in `dtype`."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = conv2d(x.astype(self.dtype), kernel.astype(self.dtype), stride=self.stride, padding=self.padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)[None, None, None, :]
        return y
