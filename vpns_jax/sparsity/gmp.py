"""Gradual magnitude pruning (Zhu and Gupta, arXiv 1710.01878)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax.sparsity.pattern import Pattern
from vpns_jax.sparsity.rules import Moves, Now, check_several_densities, stack

PyTree = Any


@dataclasses.dataclass(frozen=True)
class GradualMagnitude:
    """Gradual magnitude pruning (Zhu and Gupta, arXiv 1710.01878): the density falls from 1 by a cubic schedule.

    At progress x it is d + (1 - d) (1 - x)^3. What is pruned stays pruned.

    Attributes:
      moves: when more is pruned.
    """

    moves: Moves

    def amounts(self, pattern: Pattern, kernels: PyTree, density: float) -> PyTree:
        """Computes how much is pruned at each move, by the cubic schedule.

        Args:
          pattern: what masks may look like.
          kernels: the weights that may be pruned.
          density: the share to keep in the end.

        Returns:
          See `Rule.amounts`.

        Raises:
          UserError: the density or the pattern does not suit the kernels or the rule.
        """
        check_several_densities(pattern, "gradual magnitude pruning")
        pattern.amount(kernels, density)
        densities = density + (1 - density) * (1 - self.moves.progress) ** 3
        return stack([pattern.amount(kernels, min(float(share), 1.0)) for share in densities])

    def start(self, pattern: Pattern, kernels: PyTree, density: float) -> PyTree:
        """Keeps everything.

        Args:
          pattern: what masks may look like.
          kernels: the weights that may be pruned.
          density: the share to keep in the end.

        Returns:
          See `Rule.start`.
        """
        del density
        return jax.tree.map(lambda leaf: jnp.ones_like(leaf, bool), pattern.scored(kernels))

    def move(self, pattern: Pattern, now: Now, amount: PyTree) -> PyTree:
        """Prunes the smallest of what is left.

        Args:
          pattern: what masks may look like.
          now: what the rule sees.
          amount: a row of `amounts`.

        Returns:
          A tree of bool like `now.kept`.
        """
        return pattern.select_further(now.size, now.kept, amount)
