"""What every pruner is given, and what it gives back."""

import dataclasses
from collections.abc import Callable
from typing import Any

from vpns_jax.training.state import Fixed, Subnetwork, TrainState

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Problem:
    """A pretrained network to be pruned for a task. A pruner maps it to a `Subnetwork`.

    Attributes:
      source: the pretrained network with no mask, a prompt at its start, and a mapping whose values say nothing yet.
      kernels: the subtree of `source.weights` that may be pruned.
      pruned: how many of its weights must go.
      map_labels: (source, mask) -> label mapping [t], as the config wants it estimated.
      learn: runs stage prune from its groups of parameters, beside the prompt: (groups, subnetwork at the start)
        -> the final state and what was held fixed.
    """

    source: Subnetwork
    kernels: PyTree
    pruned: int
    map_labels: Callable[[Subnetwork, PyTree], Any]
    learn: Callable[[dict[str, PyTree], Subnetwork], tuple[TrainState, Fixed]]


Pruner = Callable[[Problem], Subnetwork]
