"""The description of a pruner: a row of the registry."""

import dataclasses
from collections.abc import Callable
from typing import Any

from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner

# Makes a network sparse, and trains with the runner if it has to. The stages that follow are the same for all methods.
Pruner = Callable[[Problem, Runner], Subnetwork]


@dataclasses.dataclass(frozen=True)
class Training:
    """The cost of a pruner's own training, in stage prune.

    Attributes:
      levels: passes of an iteration for each pass of the protocol.
      rounds: a function from (options, density) to the number of rounds; None for a pruner that trains once. Options
        of a pruner with rounds have `epochs` (of a round), `rewind_epochs` and `check_rounds`; see `methods/imp.py`.
    """

    levels: int = 1
    rounds: Callable[[Any, float], int] | None = None


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the results: a pruner, and how it uses the configured prompt.

    Attributes:
      prune: the pruner.
      options: the dataclass of its options, whose `group` is its name in the config and whose docstring is its meaning;
        None for a pruner without options. The config gets a group for each such class.
      training: the cost of its training in stage prune; None if it does not train.
      sparse: False for a method that keeps every weight, so that it runs at one density only.
      prompted: whether it learns the prompt while it trains, and in retraining; see `config.prompt.stage`.
      posthoc: whether a prompt alone is fitted to the finished network.
      gradual: whether it passes through larger densities on the way.
      given: whether the config names its mask.
      layerwise: whether every layer has the density by itself.
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
