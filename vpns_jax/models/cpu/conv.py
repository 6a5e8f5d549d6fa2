"""Convolution with torch's padding, with several ways to compute it on CPUs.

XLA's CPU convolution is slow in its gradients and for small images. Depending on the shapes, another way is faster
(docs/performance.md has the times): one matrix product where windows do not overlap, Winograd's algorithm for 3x3
kernels, or patches and a matrix product. Accelerators always use XLA's convolution.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vpns_jax.models.cpu import platforms, winograd
from vpns_jax.models.cpu.chunks import in_chunks
from vpns_jax.models.widths import unless_empty

# Zeros before and after, in height and in width.
Pads = tuple[tuple[int, int], tuple[int, int]]

# How many intermediate bytes a chunk of the batch may write: patches, patches of large kernels, Winograd's planes.
IM2COL_BYTES, LARGE_BYTES, WINOGRAD_BYTES = 16 * 2**20, 8 * 2**20, 8 * 2**20
# With fewer channels, Winograd's transforms cost more than the multiplications they save.
WINOGRAD_CHANNELS = 24
# With fewer multiply-adds an image, there is no time to save, and the program takes longer to compile.
WINOGRAD_PRODUCTS = 2**20

# torchvision's ResNet and VGG: normal with variance 2 / fan_out (He et al. 2015).
kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv2d(x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0) -> jax.Array:
    """Cross-correlation, as `torch.nn.functional.conv2d` computes it.

    Args:
      x: images `[b, h, w, c]`.
      kernel: `[kh, kw, c, o]`, same dtype as `x`; c or o may be 0.
      stride: step in both directions, >= 1.
      padding: zeros added on each of the four sides, >= 0.

    Returns:
      `[b, h_out, w_out, o]` with `h_out = (h + 2 * padding - kh) // stride + 1`.
    """
    if not kernel.size:
        h, w = ((n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[1:3], kernel.shape[:2], strict=True))
        return jnp.zeros((x.shape[0], h, w, kernel.shape[-1]), x.dtype)
    if platforms.traced_for() != "cpu":
        return lax_conv2d(x, kernel, stride=stride, padding=padding)
    return _cpu_conv2d(x, kernel, stride=stride, padding=padding)


# Jitted, so that layers of the same shapes share one program and are traced once.
@functools.partial(jax.jit, static_argnames=("stride", "padding"))
def _cpu_conv2d(x: jax.Array, kernel: jax.Array, *, stride: int, padding: int) -> jax.Array:
    kernel, pads = crop_taps(kernel, x.shape[1:3], stride=stride, padding=padding)
    kh, kw, c, o = kernel.shape
    _, h, w, _ = x.shape
    apart = kh == kw == 1 or (kh == kw == stride and h % kh == 0 and w % kw == 0)
    if apart and pads == ((0, 0), (0, 0)):
        return tiled_conv2d(x, kernel, stride=stride)
    precise = jnp.finfo(x.dtype).bits >= 32
    worthwhile = min(c, o) >= WINOGRAD_CHANNELS and h * w * kernel.size >= WINOGRAD_PRODUCTS
    if kh == kw == 3 and stride == 1 and worthwhile and precise:
        return winograd_conv2d(x, kernel, pads=pads)
    return im2col_conv2d(x, kernel, stride=stride, pads=pads)


def crop_taps(kernel: jax.Array, image_size: tuple[int, ...], *, stride: int, padding: int) -> tuple[jax.Array, Pads]:
    """Removes the taps of a kernel that only ever meet padding.

    For example, on an image of one pixel, padded by one, only the middle of a 3x3 kernel meets the pixel.

    Args:
      kernel: `[kh, kw, c, o]`.
      image_size: height and width of the image.
      stride: step in both directions, >= 1.
      padding: zeros added on each of the four sides, >= 0.

    Returns:
      The remaining kernel, and the padding that it needs.
    """
    ranges, pads = [], []
    for length, taps in zip(image_size, kernel.shape[:2], strict=True):
        last_window = (length + 2 * padding - taps) // stride * stride
        first, end = max(0, padding - last_window), min(taps, length + padding)
        ranges.append(slice(first, end))
        pads.append((padding - first, max(0, last_window + end - padding - length)))
    return kernel[tuple(ranges)], (pads[0], pads[1])


def lax_conv2d(x: jax.Array, kernel: jax.Array, *, stride: int, padding: int) -> jax.Array:
    """`conv2d`, computed by XLA's own convolution.

    Args:
      x: see `conv2d`.
      kernel: see `conv2d`.
      stride: see `conv2d`.
      padding: see `conv2d`.

    Returns:
      See `conv2d`.
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def winograd_conv2d(x: jax.Array, kernel: jax.Array, *, pads: Pads) -> jax.Array:
    """`conv2d` of a 3x3 kernel with stride 1, computed as 16 matrix products; see `winograd.py`.

    Args:
      x: see `conv2d`.
      kernel: `[3, 3, c, o]`.
      pads: zeros added before and after, in height and in width.

    Returns:
      See `conv2d`.
    """
    planes = winograd.kernel_planes(kernel)

    def convolve(x: jax.Array) -> jax.Array:
        return winograd.convolve(jnp.pad(x, ((0, 0), *pads, (0, 0))), planes)

    h, w = (n + sum(pad) - 2 for n, pad in zip(x.shape[1:3], pads, strict=True))
    floats = 16 * winograd.tiles(h) * winograd.tiles(w) * max(kernel.shape[2:])
    return in_chunks(convolve, x, floats, most=WINOGRAD_BYTES)


def im2col_conv2d(x: jax.Array, kernel: jax.Array, *, stride: int, pads: Pads) -> jax.Array:
    """`conv2d`, computed as one matrix product over shifted slices of the input.

    Args:
      x: see `conv2d`.
      kernel: see `conv2d`.
      stride: see `conv2d`.
      pads: zeros added before and after, in height and in width.

    Returns:
      See `conv2d`.
    """
    kh, kw, c, o = kernel.shape
    h, w = ((n + sum(pad) - k) // stride + 1 for n, pad, k in zip(x.shape[1:3], pads, (kh, kw), strict=True))
    large = kh * kw > 9

    def convolve(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        if large:
            # Row by row, so that the gradient adds up few slices at a time.
            rows = jnp.concatenate([_shifted(x, j, w, stride, axis=2) for j in range(kw)], axis=-1)
            rows = lax.optimization_barrier(rows)
            patches = [_shifted(rows, i, h, stride, axis=1) for i in range(kh)]
        else:
            columns = [_shifted(x, j, w, stride, axis=2) for j in range(kw)]
            patches = [_shifted(column, i, h, stride, axis=1) for i in range(kh) for column in columns]
        return jnp.concatenate(patches, axis=-1) @ kernel.reshape(kh * kw * c, o)

    return in_chunks(convolve, x, h * w * kh * kw * c, most=LARGE_BYTES if large else IM2COL_BYTES)


def _shifted(x: jax.Array, start: int, count: int, stride: int, *, axis: int) -> jax.Array:
    """The input elements that one tap of a kernel meets along an axis."""
    return lax.slice_in_dim(x, start, start + (count - 1) * stride + 1, stride, axis)


def tiled_conv2d(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    """`conv2d` without padding and with windows that do not overlap, computed as one matrix product.

    Args:
      x: see `conv2d`.
      kernel: a 1x1 kernel, or a kernel as large as the stride.
      stride: see `conv2d`.

    Returns:
      See `conv2d`.
    """
    kh, kw, c, o = kernel.shape
    if kh == 1:
        return x[:, ::stride, ::stride, :] @ kernel.reshape(c, o)
    b, h, w, _ = x.shape
    tiles = x.reshape(b, h // kh, kh, w // kw, kw, c).transpose(0, 1, 3, 2, 4, 5)
    return tiles.reshape(b, h // kh, w // kw, kh * kw * c) @ kernel.reshape(kh * kw * c, o)


class Conv(nn.Module):
    """Convolution layer: parameters `kernel` `[k, k, c, features]` and, with `use_bias`, `bias` `[features]`.

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
        kernel = self.param("kernel", unless_empty(self.kernel_init), shape, jnp.float32)
        y = conv2d(x.astype(self.dtype), kernel.astype(self.dtype), stride=self.stride, padding=self.padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)[None, None, None, :]
        return y
