"""Masks that are kept, as bits: eight weights a byte, where a mask of bools has one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

PyTree = Any


@struct.dataclass
class Bits:
    """A bool array, packed along its last axis but one, that of a kernel's inputs.

    This axis of length n is cut into eight parts of ceil(n / 8), the last ones filled up with zeros; byte j holds the
    j-th row of each. So whole rows are unpacked alike, which vectorises where neighbours in one byte would not.

    Attributes:
      bytes: uint8 [..., ceil(n / 8), m].
      shape: of the array, [..., n, m].
    """

    bytes: jax.Array
    shape: tuple[int, ...] = struct.field(pytree_node=False)


@jax.jit
def pack(mask: PyTree) -> PyTree:
    """A tree of bool arrays of rank 2 or more as a tree of `Bits`."""
    return jax.tree.map(_pack, mask)


@jax.jit
def unpack(bits: PyTree) -> PyTree:
    """The tree of bool arrays that `pack` was given."""
    return jax.tree.map(_unpack, bits, is_leaf=lambda x: isinstance(x, Bits))


def _pack(keep: jax.Array) -> Bits:
    *rest, n, m = keep.shape
    part = -(-n // 8)
    padded = jnp.pad(keep, [(0, 0)] * len(rest) + [(0, 8 * part - n), (0, 0)]).reshape(*rest, 8, part, m)
    return Bits(jnp.sum(jnp.where(padded, _powers(padded.ndim), 0), axis=-3, dtype=jnp.uint8), keep.shape)


def _unpack(bits: Bits) -> jax.Array:
    *rest, n, m = bits.shape
    keep = (jnp.expand_dims(bits.bytes, -3) & _powers(len(rest) + 3)) != 0
    return keep.reshape(*rest, -1, m)[..., :n, :]


def _powers(rank: int) -> np.ndarray:
    """A byte's bits, the lowest first, along the last axis but two of `rank`."""
    return (2 ** np.arange(8, dtype=np.uint8)).reshape((1,) * (rank - 3) + (8, 1, 1))
