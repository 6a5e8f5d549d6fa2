"""Winograd's F(2x2, 3x3): 3x3 convolutions with 2.25 times fewer multiplications (Lavin and Gray, arXiv 1509.09308).

Each output tile of 2x2 is computed from a 4x4 tile of the image; neighboring tiles are two pixels apart. Image tiles
and kernels are transformed to a space where the convolution is a product at each of 16 positions: with channels, 16
matrix products.
"""

import jax
import jax.numpy as jnp
from jax import lax

# Rows are linear combinations: Y = A^T [(G k G^T) * (B^T d B)] A, the paper's equations 8 and 10.
_B = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_A = ((1, 1, 1, 0), (0, 1, -1, -1))
_TILE, _STEP = 4, 2


def kernel_planes(kernel: jax.Array) -> list[list[jax.Array]]:
    """Transforms a kernel: G k G^T.

    Args:
      kernel: `[3, 3, c, o]`.

    Returns:
      Four rows of four matrices `[c, o]`.
    """
    # The barriers here and below store the rows. Otherwise each of the 16 combinations would compute them again.
    rows = lax.optimization_barrier(_combine(_G, list(kernel)))
    return [_combine(_G, list(row)) for row in rows]


def convolve(x: jax.Array, planes: list[list[jax.Array]]) -> jax.Array:
    """Convolves without padding.

    Args:
      x: `[b, h, w, c]`.
      planes: the kernel's `kernel_planes`.

    Returns:
      `[b, h - 2, w - 2, o]`.
    """
    (b, h, w, c), o = x.shape, planes[0][0].shape[-1]
    down, across = tiles(h - 2), tiles(w - 2)
    # Zeros up to the ends of the last tiles.
    x = jnp.pad(x, ((0, 0), (0, _STEP * down + 2 - h), (0, _STEP * across + 2 - w), (0, 0)))
    rows = lax.optimization_barrier(_combine(_B, [_every_other(x, i, down, axis=1) for i in range(_TILE)]))
    image_planes = [_combine(_B, [_every_other(row, j, across, axis=2) for j in range(_TILE)]) for row in rows]
    size = b * down * across
    products = [
        [(image.reshape(size, c) @ kernel).reshape(b, down, across, o) for image, kernel in zip(*pair, strict=True)]
        for pair in zip(image_planes, planes, strict=True)
    ]
    columns = [jnp.stack(_combine(_A, row), axis=3).reshape(b, down, _STEP * across, o) for row in products]
    y = jnp.stack(_combine(_A, columns), axis=2).reshape(b, _STEP * down, _STEP * across, o)
    return y[:, : h - 2, : w - 2]


def tiles(length: int) -> int:
    """Counts the tiles that cover outputs.

    Args:
      length: how many outputs lie along an axis.

    Returns:
      How many tiles lie along it.
    """
    return -(-length // _STEP)


def _every_other(x: jax.Array, start: int, count: int, *, axis: int) -> jax.Array:
    return lax.slice_in_dim(x, start, start + _STEP * (count - 1) + 1, _STEP, axis)


def _combine(matrix: tuple[tuple[float, ...], ...], parts: list[jax.Array]) -> list[jax.Array]:
    """One linear combination of `parts` for each row of the matrix; multiplications by 0 and 1 are left out."""
    return [_sum([_scaled(part, by) for part, by in zip(parts, row, strict=True) if by]) for row in matrix]


def _sum(terms: list[jax.Array]) -> jax.Array:
    return sum(terms[1:], start=terms[0])


def _scaled(part: jax.Array, by: float) -> jax.Array:
    return part if by == 1 else -part if by == -1 else part * by
