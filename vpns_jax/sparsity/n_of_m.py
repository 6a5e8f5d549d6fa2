"""N:M sparsity: of every M consecutive inputs at the same place, N weights are kept (Zhou et al., arXiv 2102.04010)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from vpns_jax.sparsity import selection


def split(kernel: jax.Array, m: int) -> jax.Array:
    """Gives every `m` consecutive inputs an axis of their own.

    Args:
      kernel: [..., in, out]; `m` divides the number of inputs.
      m: M of N:M.

    Returns:
      [..., in / m, m, out].
    """
    *lead, rows, columns = kernel.shape
    return kernel.reshape(*lead, rows // m, m, columns)


def prune(scores: jax.Array, m: int, pruned: Any) -> jax.Array:
    """Makes the mask that drops the `pruned` lowest of every `m` consecutive inputs; of equal ones, the first.

    Args:
      scores: float [..., in, out].
      m: M of N:M.
      pruned: M - N, an integer; may be traced.

    Returns:
      Bool, shaped as `scores`.
    """
    keys = split(selection.order_rank(scores), m)
    position = lax.broadcasted_iota(jnp.int32, keys.shape, keys.ndim - 2)

    def count_before(j: int, rank: jax.Array) -> jax.Array:
        other = lax.dynamic_index_in_dim(keys, j, axis=keys.ndim - 2)
        return rank + ((other < keys) | ((other == keys) & (position > j)))

    # Each is compared with all others: sorting many short rows takes ten times as long.
    rank = lax.fori_loop(0, m, count_before, jnp.zeros(keys.shape, jnp.int32))
    return (rank >= pruned).reshape(scores.shape)
