"""What a rule is by which a mask moves while weights are trained, and when it moves.

How much to prune at each move is computed before training, in whole numbers. So counts are exact at every step, and one
compilation serves them all.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax.errors import UserError
from vpns_jax.sparsity.pattern import Pattern

PyTree = Any


class Now(NamedTuple):
    """What a rule sees when the mask moves. All trees are like `Pattern.scored`.

    Attributes:
      kept: the mask, bool.
      size: the magnitudes of the weights, 0 where they are pruned.
      gradient: the magnitudes of the dense gradient, at the masked weights; at a move at step 0, at the weights that
        training starts with, which may be dense.
      step: the number of updates so far, an int32 scalar.
    """

    kept: PyTree
    size: PyTree
    gradient: PyTree
    step: jax.Array


class Rule(Protocol):
    """How a mask moves."""

    @property
    def moves(self) -> "Moves":
        """When it moves."""

    def amounts(self, pattern: Pattern, kernels: PyTree, density: float) -> PyTree:
        """Computes how much is pruned at each move.

        Args:
          pattern: what masks may look like.
          kernels: the weights that may be pruned.
          density: the share to keep in the end.

        Returns:
          For each number of `Pattern.amount`, one for each move: NumPy arrays.

        Raises:
          UserError: the density or the pattern does not suit the kernels or the rule.
        """

    def start(self, pattern: Pattern, kernels: PyTree, density: float) -> PyTree:
        """Makes the first mask.

        Args:
          pattern: what masks may look like.
          kernels: the weights that may be pruned.
          density: the share to keep in the end.

        Returns:
          A tree of bool like `pattern.scored(kernels)`.

        Raises:
          UserError: the density or the pattern does not suit the kernels or the rule.
        """

    def move(self, pattern: Pattern, now: Now, amount: PyTree) -> PyTree:
        """Makes the next mask.

        Args:
          pattern: what masks may look like.
          now: what the rule sees.
          amount: a row of `amounts`.

        Returns:
          A tree of bool like `now.kept`.
        """


@dataclasses.dataclass(frozen=True)
class Moves:
    """When a mask moves: at steps begin, begin + every, ..., and at last at `end`. Updates are counted from 0.

    Attributes:
      end: the step of the last move.
      every: how many steps lie between two moves.
      begin: the step of the first move.
    """

    end: int
    every: int = 100
    begin: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end < 2**31 or self.every < 1:
            raise UserError(
                f"a mask that moves from step {self.begin} to {self.end}, every {self.every} steps: it needs "
                "0 <= begin < end and every >= 1"
            )

    @property
    def progress(self) -> np.ndarray:
        """The progress at each move, float64, from 0 at `begin` to 1 at `end`."""
        steps = np.append(np.arange(self.begin, self.end, self.every), self.end)
        return (steps - self.begin) / (self.end - self.begin)

    def due(self, step: jax.Array) -> jax.Array:
        """Whether the mask moves at a step, a bool scalar."""
        regular = (step - self.begin) % self.every == 0
        return (step >= self.begin) & (step <= self.end) & (regular | (step == self.end))

    def number(self, step: jax.Array) -> jax.Array:
        """Which move is due at a step, counted from 0."""
        last = self.progress.size - 1
        return jnp.where(step == self.end, last, (step - self.begin) // self.every)


def stack(rows: list[PyTree]) -> PyTree:
    """Stacks the numbers of all moves.

    Args:
      rows: a tree of numbers for each move.

    Returns:
      A tree of arrays, with the moves as their first axis.
    """
    return jax.tree.map(lambda *values: np.stack(values), *rows)


def check_several_densities(pattern: Pattern, name: str) -> None:
    """Checks that a mask may have several densities.

    Args:
      pattern: what masks may look like.
      name: the rule, for the error.

    Raises:
      UserError: it may not, as N:M.
    """
    if pattern.granularity.n_of_m:
        raise UserError(f"{name} changes counts, and granularity {pattern.granularity} has one: use keep_mask")
