"""Exact selection over a whole tree of scores: the k-th smallest value, without sorting or concatenating."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from vpns_jax.sparsity.selection.keys import (
    END,
    LEAST_RANK,
    LOWEST,
    LOWEST_RANK,
    key_to_float,
    magnitude_rank,
    order_key,
    order_rank,
)
from vpns_jax.sparsity.selection.search import Bracket, Search, Task, by_platform

__all__ = [
    "END",
    "LEAST_RANK",
    "LOWEST",
    "LOWEST_RANK",
    "Bracket",
    "Search",
    "Task",
    "by_platform",
    "count",
    "key_to_float",
    "kth_smallest",
    "kth_smallest_key",
    "magnitude_rank",
    "order_key",
    "order_rank",
]

PyTree = Any


def kth_smallest(tree: PyTree, k: int | jax.Array) -> jax.Array:
    """The k-th smallest element over all leaves of `tree`, equal to `numpy.partition` on their concatenation.

    It is the same bit for bit, up to the sign of a zero and the bits of a NaN.

    Args:
      tree: any pytree of float32, bfloat16 or float16 arrays of any shapes, sharded or not.
      k: a rank in 1 ... N, where N is the number of elements. It may be traced: one compilation serves every k.

    Returns:
      A scalar in the leaves' common dtype (float32 if they differ).

    Raises:
      ValueError: the tree has no elements or 2**31 or more, or `k` is a Python number outside 1 ... N.
      TypeError: a leaf has another dtype.
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    total = count(tree)
    if isinstance(k, int) and not 1 <= k <= total:
        raise ValueError(f"k is {k}; a tree of {total} elements allows 1 ... {total}")
    dtypes = {leaf.dtype for leaf in leaves}
    key, _ = kth_smallest_key(leaves, jnp.asarray(k, jnp.int32))
    return key_to_float(key, dtypes.pop() if len(dtypes) == 1 else jnp.float32.dtype)


@functools.partial(jax.jit, static_argnames="search")
def kth_smallest_key(
    leaves: list[jax.Array], k: jax.Array, search: Search = by_platform
) -> tuple[jax.Array, jax.Array]:
    """The key of the k-th smallest float, and its rank among the floats with the same key.

    Args:
      leaves: float arrays of any shapes and shardings.
      k: int32 scalar in 1 ... N, may be traced.
      search: the search algorithm.

    Returns:
      `(key, rank)`, int32 scalars: of the floats whose `order_key` is `key`, `rank` (1 ... their number) belong to the
      k smallest.
    """
    task = Task(lambda leaves: [order_key(leaf) for leaf in leaves], exact=True, sampled=True, width=END - LOWEST)
    bracket = search(task, lax.stop_gradient(leaves), k, Bracket.of(LOWEST, END, count(leaves)))
    return bracket.low, k - bracket.under_low


def count(tree: PyTree) -> int:
    """The number of elements of a tree's arrays.

    Args:
      tree: pytree of arrays.

    Returns:
      The number, at least 1 and below 2**31, the range of the int32 counters.

    Raises:
      ValueError: the number is outside that range.
    """
    total = sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))
    if not 1 <= total < 2**31:
        raise ValueError(f"selection counts in int32: a tree must have 1 ... {2**31 - 1} elements, found {total}")
    return total
