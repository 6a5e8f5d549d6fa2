"""Tricks against XLA, in one place: what the compiler does otherwise, the figure, its test, and when each may go.

Selection has its own in `sparsity.selection` (how scores are counted on each platform), and `models.cpu` is one as a
whole: how convolutions and pooling are computed where XLA's own are slow.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

PyTree = Any
Carry = TypeVar("Carry")


def by_itself(run: Callable[[Carry], Carry], carry: Carry, step: jax.Array) -> Carry:
    """`run(carry)`, all of it done before what follows begins.

    - Otherwise: of two passes in one iteration, XLA puts off the first one's update and keeps its gradients beside
      the second one's, a quarter of the memory (docs/performance.md).
    - How: a loop of one turn is an end that XLA respects, and it updates its state in place. XLA must not know that
      there is one turn, or it unrolls the loop. On GPUs the host would have to ask whether a loop goes on; there XLA is
      told, and makes it no loop.
    - Guarded by: tests/test_xla.py, and tests/training/test_memory.py under protocol "reference".
    - May go: when XLA schedules two passes for memory on CPUs and TPUs as it does on GPUs.

    Args:
      run: from a tree of arrays to the next one, of the same shapes.
      carry: where it starts.
      step: an int32 scalar, zero or more, that XLA does not know the value of.

    Returns:
      `run(carry)`.
    """
    turns = lax.platform_dependent(step, cuda=jnp.ones_like, rocm=jnp.ones_like, default=_one_unknown)
    return lax.fori_loop(0, turns, lambda _, value: run(value), carry)


def _one_unknown(step: jax.Array) -> jax.Array:
    """One, which XLA cannot tell."""
    return 1 + jnp.minimum(step, 0)


def tied(constant: PyTree, changing: PyTree) -> tuple[PyTree, PyTree]:
    """Both as they are, with `constant` no longer known to be the same in every turn of a loop.

    - Otherwise: XLA computes once, ahead of the loop, whatever depends on constants alone, and keeps it: masks
      unpacked from bits (8 times their size), the position of every weight (4 bytes a weight).
    - How: an optimization barrier over both.
    - Guarded by: tests/training/test_memory.py, which reads what the compiled loop carries.
    - May go: when XLA weighs what it hoists against the memory that it takes.

    Args:
      constant: arrays that no turn of the surrounding loop changes.
      changing: arrays that every turn changes.

    Returns:
      (constant, changing).
    """
    return lax.optimization_barrier((constant, changing))
