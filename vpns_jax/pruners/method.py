"""What a pruner tells of itself: a row of the registry."""

import dataclasses
from collections.abc import Callable
from typing import Any

from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner

# Makes a network sparse. It trains what it has to by the runner; whatever follows is shared by all methods.
Pruner = Callable[[Problem, Runner], Subnetwork]


@dataclasses.dataclass(frozen=True)
class Training:
    """What a pruner trains in stage prune, before the retraining that all methods share: what it costs.

    Attributes:
      levels: passes of an iteration for each pass of the protocol.
      rounds: (options, density) -> how many rounds it trains; None for one that trains once.
    """

    levels: int = 1
    rounds: Callable[[Any, float], int] | None = None


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the results: a pruner, and what of the configured prompt goes with it.

    Attributes:
      prune: the pruner.
      options: the dataclass of its options, whose `group` is their name in the config and whose docstring begins
        with what they are; None for a pruner without. The config gets a group for each such class.
      training: what it trains in stage prune; None where it does not train.
      sparse: false for one that keeps every weight, so that densities make no difference.
      prompted: the prompt is learned where the pruner trains, and in retraining (`config.prompt.stage` says which).
      posthoc: the prompt is fitted alone, on the finished network.
      gradual: it gets to a density by way of larger ones.
      given: the mask is one that the config names.
      layerwise: every layer gets the density by itself.
    """

    prune: Pruner
    options: type[Any] | None = None
    training: Training | None = None
    sparse: bool = True
    prompted: bool = False
    posthoc: bool = False
    gradual: bool = False
    given: bool = False
    layerwise: bool = False
