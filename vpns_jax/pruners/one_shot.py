"""Masks that take no training: a score for each weight, one global threshold."""

import dataclasses
from collections.abc import Callable
from typing import Any

from vpns_jax import sparsity
from vpns_jax.pruners.problem import Problem, Pruner
from vpns_jax.training.state import Subnetwork

PyTree = Any


def by_score(criterion: Callable[[PyTree], PyTree]) -> Pruner:
    """The pruner that keeps the kernels' weights of the largest `criterion`."""

    def prune(problem: Problem) -> Subnetwork:
        mask = sparsity.prune_smallest(criterion(problem.kernels), problem.pruned)
        return dataclasses.replace(problem.source, mask=mask, mapping=problem.map_labels(problem.source, mask))

    return prune


def dense(problem: Problem) -> Subnetwork:
    """Keeps every weight: the network that the others are measured against."""
    mask = sparsity.prune_smallest(problem.kernels, 0)
    return dataclasses.replace(problem.source, mask=mask, mapping=problem.map_labels(problem.source, mask))
