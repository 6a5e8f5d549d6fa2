"""Exact selection over a whole tree of scores: the k-th smallest value, without sorting or concatenating.

Floats are compared through their bits: an unsigned integer key that has the order of the floats. That makes the
selection exact for every input, subnormal numbers too, which XLA's float comparisons flush to zero. The key's
upper half is found from one histogram over all leaves, its lower half from a second one over the values that
share the upper half (Alabi et al., "Fast k-selection algorithms for graphics processing units", 2012). A sharded
leaf contributes counts only.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

PyTree = Any

_HALF = 16
_BINS = 1 << _HALF
_SIGN = 1 << 31
_SUPPORTED = (jnp.float32.dtype, jnp.bfloat16.dtype, jnp.float16.dtype)


def order_key(x: jax.Array) -> jax.Array:
    """Unsigned 32-bit keys in the order of the floats `x` (float32, bfloat16 or float16; any shape).

    Both zeros share a key, and every NaN has one key above infinity, as in `numpy.partition`.
    """
    if x.dtype not in _SUPPORTED:
        raise TypeError(f"selection takes float32, bfloat16 or float16 arrays, found {x.dtype}")
    if x.dtype == jnp.bfloat16:
        # By the bits: a conversion may flush subnormal numbers to zero.
        bits = lax.bitcast_convert_type(x, jnp.uint16).astype(jnp.uint32) << _HALF
    else:
        bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    magnitude = bits & jnp.uint32(_SIGN - 1)
    nan = magnitude > jnp.uint32(0x7F800000)
    bits = jnp.where(nan, jnp.uint32(0x7FC00000), jnp.where(magnitude == 0, jnp.uint32(0), bits))
    return jnp.where(bits >= jnp.uint32(_SIGN), ~bits, bits | jnp.uint32(_SIGN))


def key_to_float(key: jax.Array) -> jax.Array:
    """The float32 whose `order_key` is `key`."""
    bits = jnp.where(key >= jnp.uint32(_SIGN), key ^ jnp.uint32(_SIGN), ~key)
    return lax.bitcast_convert_type(bits, jnp.float32)


def kth_smallest_key(keys: list[jax.Array], k: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The k-th smallest key and its rank among the keys equal to it.

    Args:
      keys: arrays of uint32, any shapes, at least one element in all.
      k: int32 scalar in 1 ... N, may be traced.

    Returns:
      `(key, rank)`: of the keys equal to `key`, the `rank` first (1 ... their number) belong to the k smallest.
    """
    upper = [(key >> _HALF).astype(jnp.int32) for key in keys]
    bin_upper, rank = _locate(_histogram(upper), k)
    # Values of other bins get an index past the end, which the scatter drops.
    lower = [
        jnp.where(up == bin_upper, (key & jnp.uint32(_BINS - 1)).astype(jnp.int32), _BINS)
        for up, key in zip(upper, keys, strict=True)
    ]
    bin_lower, rank = _locate(_histogram(lower), rank)
    return (bin_upper.astype(jnp.uint32) << _HALF) | bin_lower.astype(jnp.uint32), rank


def kth_smallest(tree: PyTree, k: int | jax.Array) -> jax.Array:
    """The k-th smallest element over all leaves of `tree`, bit-equal to `numpy.partition` on their concatenation.

    Args:
      tree: any pytree of float32, bfloat16 or float16 arrays of any shapes, sharded or not.
      k: in 1 ... N, N the number of elements. It may be traced: one compilation serves every k.

    Returns:
      A scalar in the leaves' common dtype (float32 if they differ).

    Raises:
      ValueError: the tree has no elements, or `k` is a Python number outside 1 ... N.
      TypeError: a leaf is of another dtype.
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    total = count(tree)
    if isinstance(k, int) and not 1 <= k <= total:
        raise ValueError(f"k is {k}; a tree of {total} elements allows 1 ... {total}")
    dtypes = {leaf.dtype for leaf in leaves}
    key, _ = kth_smallest_key([order_key(leaf) for leaf in leaves], jnp.asarray(k, jnp.int32))
    return _narrow(key_to_float(key), dtypes.pop() if len(dtypes) == 1 else jnp.float32.dtype)


def _narrow(value: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`value` is exact in `dtype`; for bfloat16 go by the bits, since a conversion may flush subnormal numbers."""
    if dtype == jnp.bfloat16:
        bits = lax.bitcast_convert_type(value, jnp.uint32) >> _HALF
        return lax.bitcast_convert_type(bits.astype(jnp.uint16), jnp.bfloat16)
    return value.astype(dtype)


def count(tree: PyTree) -> int:
    """The number of elements of a tree's arrays; at least 1 and below 2**31, the range of the counters."""
    total = sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))
    if not 1 <= total < 2**31:
        raise ValueError(f"selection counts in int32: a tree must have 1 ... {2**31 - 1} elements, found {total}")
    return total


def _histogram(indices: list[jax.Array]) -> jax.Array:
    """int32 [2**16]: how often each index occurs in all the arrays; indices past the end are not counted."""
    histogram = jnp.zeros(_BINS, jnp.int32)
    for index in indices:
        histogram = histogram.at[index.ravel()].add(1, mode="drop")
    return histogram


def _locate(histogram: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The bin that holds the k-th smallest, and its rank (1-based) within that bin."""
    cumulative = jnp.cumsum(histogram)
    index = jnp.searchsorted(cumulative, k, side="left").astype(jnp.int32)
    return index, k - (cumulative[index] - histogram[index])
