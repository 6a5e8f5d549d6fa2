"""IMP: iterative magnitude pruning, which finds lottery tickets.

Frankle and Carbin, arXiv 1803.03635; rewound to an early epoch instead of the start: Frankle et al., arXiv 1912.05671.
"""

import dataclasses
import functools
import math
from typing import Any

from vpns_jax import sparsity
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.state import Subnetwork

PyTree = Any


def prune(problem: Problem) -> Subnetwork:
    """Round by round: trains what is left, drops the smallest of it, and rewinds everything but the mask."""
    start = problem.warm_up(problem.dense())
    densities = schedule(problem.density, problem.settings.imp_drop)
    mask = problem.rounds(start, densities, functools.partial(drop_smallest, problem))
    # With the label mapping that the rounds were trained with.
    return dataclasses.replace(start, mask=mask)


def drop_smallest(problem: Problem, trained: Subnetwork, density: float) -> PyTree:
    """The mask that is left when of the weights in `trained.mask` the smallest go, until `density` of all is left."""
    return problem.keep_fewer(sparsity.subtree(trained.weights, trained.mask), trained.mask, density)


def schedule(density: float, drop: float) -> tuple[float, ...]:
    """What is left after each round: (1 - drop)^n, at the end `density`.

    The last round drops less than the others where `density` is no power of 1 - drop.
    """
    return (*((1 - drop) ** n for n in range(1, rounds(density, drop))), density)


def rounds(density: float, drop: float) -> int:
    """How many rounds reach `density`: the smallest n >= 1 with (1 - drop)^n <= density."""
    # Less a little: 0.8 to the power of 2 is a rounding error above 0.64.
    return max(1, math.ceil(math.log(density) / math.log(1 - drop) - 1e-9))
