"""VPNs, and HYDRA: scores learned on the frozen network, with a visual prompt or without one.

VPNs: arXiv 2312.01397, eq. 2. HYDRA: Sehwag et al., arXiv 2002.10509, which thresholds layer by layer; with one
global threshold it is VPNs without the prompt.
"""

import dataclasses
from typing import Any

from vpns_jax.pruners.problem import Problem
from vpns_jax.training import steps
from vpns_jax.training.state import Subnetwork

PyTree = Any


def prune(problem: Problem) -> Subnetwork:
    """Learns scores, and the prompt if there is one, jointly; the scores start at the scaled weights."""
    scores = problem.first_scores()
    mapping = problem.map_labels(problem.source, problem.keep(scores))
    start = dataclasses.replace(problem.source, mapping=mapping)
    state, fixed = problem.learn({"scores": scores}, start, problem.pattern)
    return steps.subnetwork(state, fixed)


def prune_layerwise(problem: Problem) -> Subnetwork:
    """Learns them with every layer at the same density: of its n weights int((1 - density) n) go."""
    return prune(dataclasses.replace(problem, pattern=dataclasses.replace(problem.pattern, allocation="uniform")))
