"""Masks packed into bits: a byte holds eight weights, where a bool array holds one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

PyTree = Any


@struct.dataclass
class Bits:
    """A bool array, packed along the shorter of its last two axes (the last but one if equal), or its only axis.

    The packed axis of length n is cut into eight parts of length ceil(n / 8), filled up with zeros at the end. Byte j
    holds the j-th element of each part. So whole rows are unpacked by the same operation, which vectorizes; with
    neighbors in one byte it would not. The longer axis is not packed: where the weights are split over devices along
    it, the bits are split in the same way.

    Attributes:
      bytes: uint8, shaped as the array, except for the packed axis of length ceil(n / 8).
      shape: the array's shape.
    """

    bytes: jax.Array
    shape: tuple[int, ...] = struct.field(pytree_node=False)


@jax.jit
def pack(mask: PyTree) -> PyTree:
    """A tree of bool arrays of rank 1 or more as a tree of `Bits`."""
    return jax.tree.map(_pack, mask)


@jax.jit
def unpack(bits: PyTree) -> PyTree:
    """The tree of bool arrays that `pack` was given."""
    return jax.tree.map(_unpack, bits, is_leaf=lambda x: isinstance(x, Bits))


def _pack(keep: jax.Array) -> Bits:
    axis = _packed_axis(keep.shape)
    part = -(-keep.shape[axis] // 8)
    filling = [(0, 8 * part - n if i == axis else 0) for i, n in enumerate(keep.shape)]
    parts = jnp.pad(keep, filling).reshape(*keep.shape[:axis], 8, part, *keep.shape[axis + 1 :])
    return Bits(jnp.sum(jnp.where(parts, _powers(parts.ndim, axis), 0), axis=axis, dtype=jnp.uint8), keep.shape)


def _unpack(bits: Bits) -> jax.Array:
    axis = _packed_axis(bits.shape)
    parts = (jnp.expand_dims(bits.bytes, axis) & _powers(len(bits.shape) + 1, axis)) != 0
    keep = parts.reshape(*bits.shape[:axis], -1, *bits.shape[axis + 1 :])
    return lax.slice_in_dim(keep, 0, bits.shape[axis], axis=axis)


def _packed_axis(shape: tuple[int, ...]) -> int:
    return len(shape) - (2 if len(shape) > 1 and shape[-2] <= shape[-1] else 1)


def _powers(rank: int, axis: int) -> np.ndarray:
    """The values of a byte's bits, lowest first, along `axis` of an array of that rank."""
    return (2 ** np.arange(8, dtype=np.uint8)).reshape([8 if i == axis else 1 for i in range(rank)])
