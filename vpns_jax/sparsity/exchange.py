"""Exchange of weights at a fixed density: RigL and SET.

How much is exchanged at each move is computed before training, in whole numbers, so counts are exact at every step.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax import trees
from vpns_jax.errors import UserError, several
from vpns_jax.sparsity.budget import BudgetPattern
from vpns_jax.sparsity.channels import ChannelPattern, Channels
from vpns_jax.sparsity.given import pruned_by
from vpns_jax.sparsity.pattern import Pattern
from vpns_jax.sparsity.rules import Moves, Now, check_several_densities, stack

PyTree = Any
# Above all scores of growth; sums of it are finite.
_MOST = 1e30


@dataclasses.dataclass(frozen=True)
class SET:
    """Sparse evolutionary training (Mocanu et al., arXiv 1707.04780): the smallest weights go, random ones come.

    At progress x, a share a / 2 (1 + cos(pi x)) of the kept weights is pruned, and as many grow among all that are then
    pruned, as in arXiv 1911.11134. The counts never change: of the network or, for allocations "uniform" and "erk", of
    each layer. A weight that grows starts at zero.

    Attributes:
      moves: when weights are exchanged.
      share: a, the share that is exchanged at first, in (0, 1).
      seed: of the random choices.
      mask: the first mask; None takes a random one.
    """

    moves: Moves
    share: float = 0.3
    seed: int = 0
    mask: PyTree | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(f"share is {self.share}; the share of kept weights that is exchanged must lie in (0, 1)")

    def amounts(self, pattern: Pattern, kernels: PyTree, density: float) -> PyTree:
        """Computes how much is pruned in the middle of each move, and after it.

        Args:
          pattern: what masks may look like.
          kernels: the weights that may be pruned.
          density: the share to keep in the end.

        Returns:
          Pairs of these; see `Rule.amounts`.

        Raises:
          UserError: the density or the pattern does not suit the kernels or the rule.
        """
        name = type(self).__name__
        check_several_densities(pattern, name)
        if isinstance(pattern, BudgetPattern):
            raise UserError(f"{name} exchanges equal numbers of channels, which differ in cost: use a ChannelPattern")
        if isinstance(pattern, ChannelPattern):
            _check_growth(pattern, kernels, name)
        pruned = pattern.amount(kernels, density)
        groups = _groups(pattern, pattern.scored(kernels), pruned)
        shares = self.share / 2 * (1 + np.cos(math.pi * self.moves.progress))
        middle = [
            jax.tree.map(lambda a, n, s=share: np.int32(a + int(s * (n - a))), pruned, groups) for share in shares
        ]
        return stack([(between, pruned) for between in middle])

    def start(self, pattern: Pattern, kernels: PyTree, density: float) -> PyTree:
        """Takes the given mask, or a random one.

        Args:
          pattern: what masks may look like.
          kernels: the weights that may be pruned.
          density: the share to keep in the end.

        Returns:
          See `Rule.start`.

        Raises:
          UserError: the density or the pattern does not suit the kernels or the rule.
        """
        scored, pruned = pattern.scored(kernels), pattern.amount(kernels, density)
        if self.mask is None:
            return pattern.select(pattern.random(scored, jax.random.key(self.seed)), pruned)
        kept = trees.named_leaves(pattern.kept(self.mask))
        if missing := [path for path in trees.named_leaves(scored) if path not in kept]:
            raise UserError(
                f"the first mask lacks {several(missing)}, which may be pruned: leave it out of prunable, too"
            )
        first = trees.like(scored, kept)
        _check_start(pattern, first, pruned, density)
        return first

    def move(self, pattern: Pattern, now: Now, amount: PyTree) -> PyTree:
        """Exchanges the smallest weights.

        Args:
          pattern: what masks may look like.
          now: what the rule sees.
          amount: a row of `amounts`.

        Returns:
          A tree of bool like `now.kept`.
        """
        middle, pruned = amount
        survivors = pattern.select_further(now.size, now.kept, middle)
        growth = jax.tree.map(
            lambda keep, g: jnp.where(keep, jnp.inf, jnp.minimum(g.astype(jnp.float32), _MOST)),
            survivors,
            self.growth(pattern, now),
        )
        return pattern.select(growth, pruned)

    def growth(self, pattern: Pattern, now: Now) -> PyTree:
        """Scores what may grow.

        Args:
          pattern: what masks may look like.
          now: what a rule sees.

        Returns:
          Scores, a tree like `now.kept`; the largest grow.
        """
        return pattern.random(now.kept, jax.random.fold_in(jax.random.key(self.seed), now.step + 1))


@dataclasses.dataclass(frozen=True)
class RigL(SET):
    """RigL (Evci et al., arXiv 1911.11134): the smallest weights go, those of the largest gradient come; see `SET`.

    The gradient must be dense: that of the loss at the masked weights, by all weights. That is the usual gradient,
    since pruned weights are zeros like any other; only at a move at step 0 it is that at the weights that training
    starts with, dense or masked. A loss that multiplies by the mask itself would give none to grow by.
    """

    def growth(self, pattern: Pattern, now: Now) -> PyTree:
        """Scores by the gradient; see `SET.growth`."""
        del pattern
        return now.gradient


def _groups(pattern: Pattern, scored: PyTree, pruned: PyTree) -> PyTree:
    """The number of groups, in all or in each layer: a tree like `pruned`."""
    numbers = [layer.groups for layer in pattern.ranking.layers(scored)]
    return tuple(numbers) if isinstance(pruned, tuple) else sum(numbers)


def _check_growth(pattern: ChannelPattern, kernels: PyTree, name: str) -> None:
    """Refuses channels that would never learn after they grow."""
    prunable = trees.named_leaves(kernels).keys()
    pruned = [each for each in pattern.channels if not each.fixed and each.writers[0].kernel in prunable]
    if dead := [each.writers[0].kernel for each in pruned if not _learns_from_zero(each)]:
        raise UserError(
            f"{name} cannot exchange the channels of {several(dead)}: one that grows has its kernel, scale and bias at "
            "zero, and gets no gradient through a normalization, a scale or ReLU; leave them out of prunable, or use "
            "GradualMagnitude"
        )


def _learns_from_zero(channels: Channels) -> bool:
    """Whether a kernel gets a gradient where it is zero, with all other parameters that end its channel."""
    step = 1e-3
    # From the left, where ReLU is flat: its gradient at zero is zero, too.
    slope = (channels.activation(np.float64(0)) - channels.activation(np.float64(-step))) / step
    # It is NaN if the activation is not known.
    return not channels.vectors and not any(writer.norm for writer in channels.writers) and abs(float(slope)) > 0


def _check_start(pattern: Pattern, kept: PyTree, pruned: PyTree, density: float) -> None:
    """Checks that a first mask has the counts that will be kept up."""
    if trees.is_traced(kept):
        return
    actual = pruned_by(kept, pattern, "the first mask")
    if actual != jax.tree.map(int, pruned):
        raise UserError(
            f"the first mask prunes {actual}, density {density:g} with allocation {pattern.allocation} prunes "
            f"{jax.tree.map(int, pruned)}: make it with the same density and pattern"
        )
