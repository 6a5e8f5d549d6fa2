"""What every pruner is given: a pretrained network to be made sparse for a task, as data."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from vpns_jax import sparsity
from vpns_jax.prompting import label_mapping
from vpns_jax.sparsity import Pattern
from vpns_jax.training.batches import Batch, Split, sample
from vpns_jax.training.evaluation import estimate_mapping
from vpns_jax.training.network import Network, Subnetwork
from vpns_jax.training.passes import inputs
from vpns_jax.training.runner import Runner
from vpns_jax.training.stage import Recipe

PyTree = Any
# Of what is kept; more is said in the report.
MOST_TIED = 0.1


@dataclasses.dataclass(frozen=True)
class Problem:
    """A pretrained network to be pruned for a task.

    Attributes:
      network: the static half of the network, as stage prune runs it: with a prompt or without.
      source: the pretrained network with no mask, a prompt at its start, and a mapping whose values say nothing yet.
      prunable: the subtree of `source.weights` that may be pruned.
      density: the share of its groups to keep.
      pattern: what its groups are: single weights, or more of them.
      key: for what a pruner draws by lot.
      scoring_key: for the batches that a pruner scores weights on.
      train: the training data.
      mapping: how the label mapping is found at the start.
      prune: how stage prune is trained.
      retrain: how stage retrain will be trained, for a pruner that trains weights.
      options: what the config says of this pruner alone.
      given: a mask from elsewhere, like `prunable`; None where there is none.
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
    def iterations(self) -> int:
        """Of an epoch."""
        return self.train.size // self.prune.batch_size

    def dense(self) -> Subnetwork:
        """The source with a mask that keeps everything, its labels mapped."""
        return self.sparse(jax.tree.map(lambda w: jnp.ones(w.shape, bool), self.prunable))

    def sparse(self, mask: PyTree) -> Subnetwork:
        """The source under `mask`, its labels mapped."""
        return dataclasses.replace(self.source, mask=mask, mapping=self.map_labels(mask))

    def map_labels(self, mask: PyTree) -> jax.Array:
        """The label mapping to begin with, int32 [t], where `mask` is on."""
        return self.mapping.of(self, mask)

    def first_scores(self) -> PyTree:
        """Where learned scores start: at the scaled weights, equally large in all layers where groups are pruned."""
        scores = sparsity.scaled_init(self.prunable)
        return scores if self.pattern.granularity.kind in ("weight", "N:M") else sparsity.level(scores)

    def pruned(self, density: float) -> PyTree:
        """How many groups to prune, int32: as arrays, so that one compilation serves every density."""
        return jax.tree.map(jnp.int32, sparsity.pruned_groups(self.pattern, self.prunable, density))

    def keep(self, scores: PyTree, *, signed: bool = False, runner: Runner | None = None) -> PyTree:
        """The mask that scores of the prunable weights give; see `sparsity.prune_groups`.

        Args:
          scores: a tree like `prunable`.
          signed: whether a score's sign says which way.
          runner: is told where ties decided more than a tenth of what is kept.

        Raises:
          UserError: the scores are all equal, or not finite.
        """
        if self.density < 1:
            sparsity.check_scores(scores)
        mask = sparsity.prune_groups(scores, self.pruned(self.density), self.pattern, signed=signed)
        if runner is not None:
            self.note_ties(runner, scores, mask, signed=signed)
        return mask

    def note_ties(self, runner: Runner, scores: PyTree, mask: PyTree, *, signed: bool = False) -> None:
        """Tells the runner where ties decided more than a tenth of the weights that one threshold keeps."""
        if self.pattern.granularity.kind != "weight" or self.pattern.allocation != "global":
            return
        share = sparsity.tied_share(scores, mask, signed=signed)
        if share > MOST_TIED:
            runner.notes.append(
                f"ties decided {share:.0%} of the weights that are kept: their scores equal those of pruned ones, and "
                "the first in the order of layers went"
            )

    def keep_fewer(self, scores: PyTree, mask: PyTree, density: float) -> PyTree:
        """The mask that keeps, of what `mask` keeps, the largest |score|: `density` of all there is."""
        return sparsity.prune_groups_further(scores, mask, self.pruned(density), self.pattern)

    def by_score(self, scores: PyTree, runner: Runner) -> Subnetwork:
        """The source with its weights of the largest |score|; see `keep`."""
        return self.sparse(self.keep(scores, runner=runner))

    def batches(self, count: int) -> Iterator[tuple[Batch, jax.Array]]:
        """`count` training batches to score weights on, each with a key of its own; the same ones at every call."""
        first = inputs(self.prune.protocol, prompted=self.network.prompted)[0]
        return sample(
            self.train,
            augmented=first.augmented,
            batch_size=self.prune.batch_size,
            count=count,
            key=self.scoring_key,
        )


class FirstMapping(Protocol):
    """How a pruner finds the label mapping to begin with."""

    def of(self, problem: Problem, mask: PyTree) -> jax.Array:
        """The source class of each target class, int32 [t]."""
        ...


@dataclasses.dataclass(frozen=True)
class ByFrequency:
    """The class that the network answers most often with, on the training data.

    Attributes:
      sparse: whether it is asked under the mask, or dense.
    """

    sparse: bool

    def of(self, problem: Problem, mask: PyTree) -> jax.Array:
        """See `evaluation.estimate_mapping`."""
        asked = dataclasses.replace(problem.source, mask=mask) if self.sparse else problem.source
        return estimate_mapping(problem.network, asked, problem.train, batch_size=problem.prune.batch_size)


@dataclasses.dataclass(frozen=True)
class ByLot:
    """Any class, each at most once.

    Attributes:
      key: of the draw.
      source_classes: how many there are.
    """

    key: jax.Array
    source_classes: int

    def of(self, problem: Problem, mask: PyTree) -> jax.Array:
        """See `label_mapping.random`."""
        del mask
        return label_mapping.random(self.key, self.source_classes, problem.source.mapping.size)


@dataclasses.dataclass(frozen=True)
class NewHead:
    """None: the head is new, and its classes are the data's, in order."""

    def of(self, problem: Problem, mask: PyTree) -> jax.Array:
        """0, 1, 2, ..."""
        del mask
        return jnp.arange(problem.source.mapping.size, dtype=jnp.int32)
