"""Rules by which a mask moves while weights are trained: gradual magnitude pruning, RigL and SET.

How much to prune at each move is computed before training, in whole numbers. So counts are exact at every step, and one
compilation serves them all.
"""

import dataclasses
import math
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax import trees
from vpns_jax.errors import UserError, several
from vpns_jax.sparsity.budget import BudgetPattern
from vpns_jax.sparsity.pattern import Pattern
from vpns_jax.sparsity.scores import random

PyTree = Any
# Above all scores of growth, and finite sums of them.
_MOST = 1e30


class Now(NamedTuple):
    """What a rule sees when the mask moves. All trees are like `Pattern.scored`.

    Attributes:
      kept: the mask, bool.
      size: the magnitudes of the weights, 0 where they are pruned.
      gradient: the magnitudes of the dense gradient, at the masked weights.
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
        _check_counts(pattern, "gradual magnitude pruning")
        pattern.amount(kernels, density)
        densities = density + (1 - density) * (1 - self.moves.progress) ** 3
        return _stack([pattern.amount(kernels, min(float(share), 1.0)) for share in densities])

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
        return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), pattern.scored(kernels))

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
        _check_counts(pattern, type(self).__name__, exchanged=True)
        pruned = pattern.amount(kernels, density)
        groups = _groups(pattern, pattern.scored(kernels), pruned)
        shares = self.share / 2 * (1 + np.cos(math.pi * self.moves.progress))
        middle = [
            jax.tree.map(lambda a, n, s=share: np.int32(a + int(s * (n - a))), pruned, groups) for share in shares
        ]
        return _stack([(between, pruned) for between in middle])

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
            return pattern.select(random(scored, jax.random.key(self.seed)), pruned)
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
            self.growth(now),
        )
        return pattern.select(growth, pruned)

    def growth(self, now: Now) -> PyTree:
        """Scores what may grow.

        Args:
          now: what a rule sees.

        Returns:
          Scores, a tree like `now.kept`; the largest grow.
        """
        return random(now.kept, jax.random.fold_in(jax.random.key(self.seed), now.step + 1))


@dataclasses.dataclass(frozen=True)
class RigL(SET):
    """RigL (Evci et al., arXiv 1911.11134): the smallest weights go, those of the largest gradient come; see `SET`.

    The gradient must be dense: that of the loss at the masked weights, by all weights. That is the usual gradient,
    since pruned weights are zeros like any other. A loss that multiplies by the mask itself would give none to grow by.
    """

    def growth(self, now: Now) -> PyTree:
        """Scores by the gradient; see `SET.growth`."""
        return now.gradient


def _stack(rows: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *values: np.stack(values), *rows)


def _check_counts(pattern: Pattern, name: str, *, exchanged: bool = False) -> None:
    if pattern.granularity.kind == "N:M":
        raise UserError(f"{name} changes counts, and granularity {pattern.granularity} has one: use keep_mask")
    if exchanged and isinstance(pattern, BudgetPattern):
        raise UserError(f"{name} exchanges equal numbers of channels, which differ in cost: use a ChannelPattern")


def _groups(pattern: Pattern, scored: PyTree, pruned: PyTree) -> PyTree:
    """The number of groups, in all or in each layer: a tree like `pruned`."""
    numbers = [layer.groups for layer in pattern.ranking.layers(scored)]
    return tuple(numbers) if isinstance(pruned, tuple) else sum(numbers)


def _check_start(pattern: Pattern, kept: PyTree, pruned: PyTree, density: float) -> None:
    """Checks that a first mask has the counts that will be kept up."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(kept)):
        return
    leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(kept)]
    numbers = [
        layer.groups - int(jnp.sum(layer.mean(leaves) > 0.5, dtype=jnp.int32)) for layer in pattern.ranking.layers(kept)
    ]
    actual = tuple(numbers) if isinstance(pruned, tuple) else sum(numbers)
    if actual != jax.tree.map(int, pruned):
        raise UserError(
            f"the first mask prunes {actual}, density {density:g} with allocation {pattern.allocation} prunes "
            f"{jax.tree.map(int, pruned)}: make it with the same density and pattern"
        )
