"""IMP: iterative magnitude pruning, which finds lottery tickets.

Frankle and Carbin, arXiv 1803.03635; rewound to an early epoch instead of the start: Frankle et al., arXiv 1912.05671.
"""

import dataclasses
import math
from typing import Any

from vpns_jax import sparsity
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.state import Subnetwork

PyTree = Any


def prune(problem: Problem) -> Subnetwork:
    """Round by round: trains what is left, drops the smallest of it, and rewinds everything but the mask."""
    start = problem.warm_up(problem.dense())
    size = sparsity.selection.count(problem.kernels)
    counts = schedule(size, problem.density, problem.settings.imp_drop)
    mask = problem.rounds(start, counts, drop_smallest)
    return dataclasses.replace(start, mask=mask, mapping=problem.map_labels(start, mask))


def drop_smallest(trained: Subnetwork, pruned: int) -> PyTree:
    """The mask that is left when of the weights in `trained.mask` the smallest go, `pruned` in all."""
    return sparsity.prune_further(sparsity.subtree(trained.weights, trained.mask), trained.mask, pruned)


def schedule(size: int, density: float, drop: float) -> tuple[int, ...]:
    """How many of `size` weights are gone after each round: int((1 - (1 - drop)^n) size), at the end the target's.

    The last round drops less than the others where `density` is no power of 1 - drop.
    """
    counts = [int((1 - (1 - drop) ** n) * size) for n in range(1, rounds(density, drop))]
    return (*counts, int((1 - density) * size))


def rounds(density: float, drop: float) -> int:
    """How many rounds reach `density`: the smallest n >= 1 with (1 - drop)^n <= density."""
    # Less a little: 0.8 to the power of 2 is a rounding error above 0.64.
    return max(1, math.ceil(math.log(density) / math.log(1 - drop) - 1e-9))
