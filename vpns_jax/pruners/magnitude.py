"""OMP: one-shot magnitude pruning (Han et al., arXiv 1506.02626)."""

from vpns_jax import sparsity
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Keeps the largest weights, under one threshold for all layers."""
    return problem.by_score(sparsity.magnitude(problem.prunable), runner)
