"""VPNs, and HYDRA: scores learned on the frozen network, with a visual prompt or without one.

VPNs: arXiv 2312.01397, eq. 2. HYDRA: Sehwag et al., arXiv 2002.10509, here with one global threshold.
"""

import dataclasses

from vpns_jax import sparsity
from vpns_jax.pruners.problem import Problem
from vpns_jax.training import steps
from vpns_jax.training.state import Subnetwork


def prune(problem: Problem) -> Subnetwork:
    """Starts the scores at the scaled weights, maps the labels, and learns scores and prompt jointly."""
    scores = sparsity.scaled_init(problem.kernels)
    mask = sparsity.prune_smallest(scores, problem.pruned)
    start = dataclasses.replace(problem.source, mapping=problem.map_labels(problem.source, mask))
    state, fixed = problem.learn({"scores": scores}, start)
    return steps.subnetwork(state, fixed)
