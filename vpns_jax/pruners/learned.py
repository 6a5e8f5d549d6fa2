"""VPNs, and HYDRA: scores learned on the frozen network, with a visual prompt or without one.

VPNs: arXiv 2312.01397, eq. 2. HYDRA: Sehwag et al., arXiv 2002.10509, which thresholds layer by layer; with one
global threshold it is VPNs without the prompt.
"""

import dataclasses
from typing import Any

import jax

from vpns_jax import sparsity
from vpns_jax.pruners.problem import Problem
from vpns_jax.training import steps
from vpns_jax.training.state import Subnetwork

PyTree = Any


def prune(problem: Problem) -> Subnetwork:
    """Learns scores, and the prompt if there is one, under one global threshold."""
    return _learn(problem, problem.pruned)


def prune_layerwise(problem: Problem) -> Subnetwork:
    """Learns them with every layer at the same density: of its n weights int((1 - density) n) go."""
    return _learn(problem, jax.tree.map(lambda w: sparsity.pruned_count(w, problem.density), problem.kernels))


def _learn(problem: Problem, pruned: int | PyTree) -> Subnetwork:
    """Starts the scores at the scaled weights, maps the labels, and learns scores and prompt jointly."""
    scores = sparsity.scaled_init(problem.kernels)
    mask = sparsity.prune_smallest(scores, pruned)
    start = dataclasses.replace(problem.source, mapping=problem.map_labels(problem.source, mask))
    state, fixed = problem.learn({"scores": scores}, start, pruned)
    return steps.subnetwork(state, fixed)
