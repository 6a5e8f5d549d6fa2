"""What every pruner is given, and what it gives back."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from vpns_jax import sparsity
from vpns_jax.sparsity import Pattern
from vpns_jax.training.forward import Network
from vpns_jax.training.state import Fixed, Subnetwork, TrainState
from vpns_jax.training.steps import Batch

PyTree = Any


class Learn(Protocol):
    """Runs stage prune and returns its final state and what was held fixed."""

    def __call__(self, groups: dict[str, PyTree], start: Subnetwork, pattern: Pattern) -> tuple[TrainState, Fixed]:
        """Learns `groups` beside the prompt: {"scores"} on frozen weights, or {"scores", "weights"} on two levels."""
        ...


class Rounds(Protocol):
    """Runs rounds of training, each from `start`, and returns the mask that the last one leads to."""

    def __call__(
        self, start: Subnetwork, densities: tuple[float, ...], drop: Callable[[Subnetwork, float], PyTree]
    ) -> PyTree:
        """Trains weights (and prompt) under the mask so far, round by round; `drop(trained, density)` is the next."""
        ...


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the config says of single pruners; see configs/default.py."""

    temperature: float
    synflow_rounds: int
    imp_drop: float


@dataclasses.dataclass(frozen=True)
class Problem:
    """A pretrained network to be pruned for a task. A pruner maps it to a `Subnetwork`.

    Attributes:
      network: the static half of the network, as stage prune runs it: with a prompt or without.
      source: the pretrained network with no mask, a prompt at its start, and a mapping whose values say nothing yet.
      kernels: the subtree of `source.weights` that may be pruned.
      density: the share of its groups to keep.
      pattern: what its groups are: single weights, or more of them.
      key: for what a pruner draws by lot.
      settings: of single pruners.
      train: whether scores are taken on batch statistics and with dropout, as training has them.
      map_labels: (source, mask) -> label mapping [t], as the config wants it estimated.
      batches: training batches to score weights on, each with a key of its own; the same ones at every call.
      learn: runs stage prune.
      warm_up: trains the dense network for the few epochs that iterative pruning rewinds to; for none, returns it.
      rounds: runs the rounds of iterative pruning.
      given: a mask from elsewhere, like `kernels`; None where the config names none.
      spend: told of forward and backward passes that a pruner runs itself, for the report.
    """

    network: Network
    source: Subnetwork
    kernels: PyTree
    density: float
    pattern: Pattern
    key: jax.Array
    settings: Settings
    train: bool
    map_labels: Callable[[Subnetwork, PyTree], Any]
    batches: Callable[[], Iterator[tuple[Batch, jax.Array]]]
    learn: Learn
    warm_up: Callable[[Subnetwork], Subnetwork]
    rounds: Rounds
    given: PyTree | None
    spend: Callable[[int], None]

    def dense(self) -> Subnetwork:
        """The source with a mask that keeps everything, its labels mapped."""
        return self.sparse(jax.tree.map(lambda w: jnp.ones(w.shape, bool), self.kernels))

    def sparse(self, mask: PyTree) -> Subnetwork:
        """The source under `mask`, its labels mapped."""
        return dataclasses.replace(self.source, mask=mask, mapping=self.map_labels(self.source, mask))

    def first_scores(self) -> PyTree:
        """Where learned scores start: at the scaled weights, equally large in all layers where groups are pruned."""
        scores = sparsity.scaled_init(self.kernels)
        return scores if self.pattern.granularity.kind in ("weight", "N:M") else sparsity.level(scores)

    def keep(self, scores: PyTree, *, signed: bool = False) -> PyTree:
        """The mask that scores of the kernels give; see `sparsity.prune_groups`."""
        return sparsity.prune_groups(scores, self._pruned(self.density), self.pattern, signed=signed)

    def keep_fewer(self, scores: PyTree, mask: PyTree, density: float) -> PyTree:
        """The mask that keeps, of what `mask` keeps, the largest |score|: `density` of all there is."""
        return sparsity.prune_groups_further(scores, mask, self._pruned(density), self.pattern)

    def by_score(self, scores: PyTree) -> Subnetwork:
        """The source with the kernels' weights of the largest |score|."""
        return self.sparse(self.keep(scores))

    def _pruned(self, density: float) -> PyTree:
        # As arrays, so that one compilation serves every density.
        return jax.tree.map(jnp.int32, sparsity.pruned_groups(self.pattern, self.kernels, density))


Pruner = Callable[[Problem], Subnetwork]
