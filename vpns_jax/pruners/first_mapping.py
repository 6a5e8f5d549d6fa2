"""The ways to make a problem's first label mapping."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax.prompting import label_mapping
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.evaluation import estimate_mapping

PyTree = Any


@dataclasses.dataclass(frozen=True)
class FrequencyMapping:
    """Assigns to each class the source class that the network predicts most often for its training images.

    No source class is assigned twice.

    Attributes:
      sparse: whether the sparse network predicts, or the dense one.
    """

    sparse: bool

    def of(self, problem: Problem, mask: PyTree) -> jax.Array:
        """Estimates the mapping; see `FirstMapping.of` and `evaluation.estimate_mapping`."""
        subnetwork = dataclasses.replace(problem.source, mask=mask) if self.sparse else problem.source
        return estimate_mapping(problem.network, subnetwork, problem.train, batch_size=problem.prune.batch_size)


@dataclasses.dataclass(frozen=True)
class RandomMapping:
    """Assigns random source classes, each at most once.

    Attributes:
      key: the random key.
      source_classes: the number of source classes.
    """

    key: jax.Array
    source_classes: int

    def of(self, problem: Problem, mask: PyTree) -> jax.Array:
        """Draws the mapping; see `FirstMapping.of` and `label_mapping.random`."""
        del mask
        return label_mapping.random(self.key, self.source_classes, problem.source.mapping.size)


@dataclasses.dataclass(frozen=True)
class NewHead:
    """Assigns each class to itself, because a new head has the classes of the data, in order."""

    def of(self, problem: Problem, mask: PyTree) -> jax.Array:
        """Returns 0, 1, 2, ...; see `FirstMapping.of`."""
        del mask
        return jnp.arange(problem.source.mapping.size, dtype=jnp.int32)
