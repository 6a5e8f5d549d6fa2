"""The problem that every pruner is given: a pretrained network to make sparse for a task."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from vpns_jax import sparsity
from vpns_jax.sparsity import Pattern
from vpns_jax.training.batches import Batch, Split, iterations_of, sample
from vpns_jax.training.network import Network, Subnetwork
from vpns_jax.training.passes import Preparation, preparations
from vpns_jax.training.runner import Runner
from vpns_jax.training.stage import Recipe

PyTree = Any
# The share of what is kept that ties may decide before the report has a note.
MOST_TIED = 0.1


@dataclasses.dataclass(frozen=True)
class Problem:
    """A pretrained network to be pruned for a task.

    Attributes:
      network: the static half of the network in stage prune, with or without a prompt.
      source: the pretrained network, with no mask, an initial prompt, and a mapping whose values have no meaning yet.
      prunable: the subtree of `source.weights` that may be pruned.
      density: the share of groups to keep, in (0, 1].
      pattern: which weights are pruned together: single ones, or groups of them.
      key: the key for random numbers that a pruner draws.
      scoring_key: the key for the batches on which a pruner scores weights.
      train: the training data.
      mapping: how the first label mapping is made.
      prune: how stage prune is trained.
      retrain: how stage retrain will be trained, for a pruner that trains weights.
      options: the pruner's own options; None if it has none.
      given: the mask of an earlier run, as `Pattern.mask` makes it; None if there is none.
    """

    network: Network
    source: Subnetwork
    prunable: PyTree
    density: float
    pattern: Pattern
    key: jax.Array
    scoring_key: jax.Array
    train: Split
    mapping: "FirstMapping"
    prune: Recipe
    retrain: Recipe
    options: Any = None
    given: PyTree | None = None

    @property
    def scored(self) -> PyTree:
        """The source's arrays that get one score for each element: the prunable weights, or the gates of channels."""
        return self.pattern.scored(self.prunable)

    @property
    def iterations(self) -> int:
        """Iterations of an epoch."""
        return iterations_of(self.train, self.prune.batch_size)

    @property
    def preparation(self) -> Preparation:
        """How batches to score weights on are prepared: as for the first pass of stage prune."""
        return preparations(self.prune.protocol, prompted=self.network.prompted)[0]

    def dense(self) -> Subnetwork:
        """Makes the source network with a mask that keeps everything, and with its label mapping.

        Returns:
          The dense network.
        """
        return self.sparse(self.everything())

    def everything(self) -> PyTree:
        """Makes the mask that keeps everything.

        Returns:
          A tree of bool arrays.
        """
        return self._mask(jax.tree.map(lambda x: jnp.ones(x.shape, bool), self.scored))

    def sparse(self, mask: PyTree) -> Subnetwork:
        """Makes the source network under a mask, with its label mapping.

        Args:
          mask: the mask, as `Pattern.mask` makes it.

        Returns:
          The sparse network.
        """
        return dataclasses.replace(self.source, mask=mask, mapping=self.map_labels(mask))

    def map_labels(self, mask: PyTree) -> jax.Array:
        """Makes the first label mapping.

        Args:
          mask: the mask, as `Pattern.mask` makes it.

        Returns:
          The source class of each target class, int32 [t].
        """
        return self.mapping.of(self, mask)

    def first_scores(self) -> PyTree:
        """Makes initial scores from the scaled weights. If groups are pruned, scores are equally large in all layers.

        Returns:
          A tree like `scored`.
        """
        return self.pattern.first_scores(self.prunable)

    def pruned(self, density: float) -> PyTree:
        """Computes how much to prune, as arrays, so that one compilation serves every density.

        Args:
          density: the share of groups to keep.

        Returns:
          What `Pattern.amount` returns: a number of groups, one for each layer, or a share of the network's cost.
        """
        return jax.tree.map(jnp.asarray, self.pattern.amount(self.prunable, density))

    def keep(self, scores: PyTree, *, signed: bool = False, runner: Runner | None = None) -> PyTree:
        """Keeps the groups with the largest scores; see `sparsity.prune_groups`.

        Args:
          scores: a tree like `scored`.
          signed: whether the sign of a score counts; otherwise its magnitude does.
          runner: takes a note if ties decided more than `MOST_TIED`; None for no note.

        Returns:
          The mask, a tree of bool arrays; for channels it also has the arrays that end them.

        Raises:
          UserError: the scores are all equal, or not finite.
        """
        if self.density < 1:
            sparsity.check_scores(scores)
        kept = self.pattern.select(scores, self.pruned(self.density), signed=signed)
        if runner is not None:
            self._note_ties(runner, scores, kept, signed=signed)
        return self._mask(kept)

    def learned(self, scores: PyTree, subnetwork: Subnetwork, runner: Runner) -> Subnetwork:
        """Hands on a network whose mask was learned.

        Args:
          scores: the learned scores, a tree like `scored`.
          subnetwork: the network, with the mask that they gave.
          runner: takes a note if ties decided more than `MOST_TIED`.

        Returns:
          The network.
        """
        self._note_ties(runner, scores, self.pattern.kept(subnetwork.mask))
        return subnetwork

    def keep_fewer(self, scores: PyTree, mask: PyTree, density: float, runner: Runner) -> PyTree:
        """Keeps the groups with the largest |score| among those that a mask keeps.

        Args:
          scores: a tree like `scored`.
          mask: the mask so far.
          density: the share of all groups to keep.
          runner: takes a note if this is the problem's density, and ties decided more than `MOST_TIED`.

        Returns:
          The new mask.
        """
        # As in `Pattern.select_further`; ties are looked for among the scores that were ranked.
        scores = sparsity.remaining(scores, self.pattern.kept(mask))
        kept = self.pattern.select(scores, self.pruned(density))
        return self.chosen(scores, kept, runner) if density == self.density else self._mask(kept)

    def chosen(self, scores: PyTree, kept: PyTree, runner: Runner) -> PyTree:
        """Makes the mask of what was kept.

        Args:
          scores: the scores by which it was, a tree like `scored`.
          kept: a tree of bool arrays like `scored`.
          runner: takes a note if ties decided more than `MOST_TIED`.

        Returns:
          The mask.
        """
        self._note_ties(runner, scores, kept)
        return self._mask(kept)

    def by_score(self, scores: PyTree, runner: Runner) -> Subnetwork:
        """Makes the source network that keeps the groups with the largest |score|; see `keep`.

        Args:
          scores: a tree like `scored`.
          runner: takes a note if ties decided more than `MOST_TIED`.

        Returns:
          The sparse network.

        Raises:
          UserError: the scores are all equal, or not finite.
        """
        return self.sparse(self.keep(scores, runner=runner))

    def _note_ties(self, runner: Runner, scores: PyTree, kept: PyTree, *, signed: bool = False) -> None:
        share = sparsity.tied_share(scores, kept, self.pattern, signed=signed)
        if share > MOST_TIED:
            things = "weights" if self.pattern.granularity.is_single else "groups of weights"
            runner.notes.append(
                f"ties decided {share:.0%} of the {things} that are kept: their scores equal those of pruned ones, and "
                "of equal scores the first in the order of layers were pruned"
            )

    def _mask(self, kept: PyTree) -> PyTree:
        return self.pattern.mask(kept, self.source.weights)

    def batches(self, count: int) -> Iterator[tuple[Batch, jax.Array]]:
        """Draws training batches to score weights on; every call gives the same ones.

        Args:
          count: the number of batches.

        Returns:
          Pairs of a batch and a key of its own.
        """
        return sample(
            self.train,
            augmented=self.preparation.augmented,
            batch_size=self.prune.batch_size,
            count=count,
            key=self.scoring_key,
        )


class FirstMapping(Protocol):
    """How the first label mapping is made; the ways are in `first_mapping.py`."""

    def of(self, problem: Problem, mask: PyTree) -> jax.Array:
        """Makes the mapping.

        Args:
          problem: the problem.
          mask: the mask, as `Pattern.mask` makes it.

        Returns:
          The source class of each target class, int32 [t].
        """
        ...
