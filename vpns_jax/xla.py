"""Workarounds for XLA: what the compiler does without each, what that costs, the test that guards it, when it may go.

Two more are elsewhere: `sparsity.selection` counts scores in another way on each platform, and `models.cpu` computes
convolutions and pooling on CPUs, where XLA is slow.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

PyTree = Any
Carry = TypeVar("Carry")


def by_itself(run: Callable[[Carry], Carry], carry: Carry, step: jax.Array) -> Carry:
    """`run(carry)`, computed completely before the following operations start.

    - Otherwise: of two passes in one iteration, XLA delays the first one's update and keeps its gradients while it
      computes the second one's: a quarter more memory (docs/performance.md).
    - How: a loop with one turn. XLA finishes a loop before the operations after it, and updates the loop's state in
      place. XLA must not know that there is only one turn; otherwise it removes the loop. On GPUs a loop would make the
      host wait, so there XLA is told the number and removes the loop.
    - Guarded by: tests/test_xla.py, and tests/training/test_memory.py under protocol "reference".
    - May go: when XLA schedules two passes for low memory on CPUs and TPUs as it does on GPUs.

    Args:
      run: a function from a tree of arrays to the next one, of the same shapes.
      carry: the tree that it gets.
      step: an int32 scalar, zero or more, whose value XLA does not know.

    Returns:
      `run(carry)`.
    """
    turns = lax.platform_dependent(step, cuda=jnp.ones_like, rocm=jnp.ones_like, default=_one_unknown)
    return lax.fori_loop(0, turns, lambda _, value: run(value), carry)


def _one_unknown(step: jax.Array) -> jax.Array:
    """The number one, in a form that XLA cannot simplify."""
    return 1 + jnp.minimum(step, 0)


def tied(constant: PyTree, changing: PyTree) -> tuple[PyTree, PyTree]:
    """Returns both unchanged, but hides from XLA that `constant` is the same in every turn of a loop.

    - Otherwise: XLA computes everything that depends on constants alone once before the loop, and stores it: masks
      unpacked from bits (8 times their size), the position of every weight (4 bytes a weight).
    - How: an optimization barrier over both.
    - Guarded by: tests/training/test_memory.py, which reads the arrays that the compiled loop carries.
    - May go: when XLA considers the memory of what it moves out of loops.

    Args:
      constant: arrays that no turn of the surrounding loop changes.
      changing: arrays that every turn changes.

    Returns:
      (constant, changing).
    """
    return lax.optimization_barrier((constant, changing))
