"""No pruning: the network that the others are measured against."""

from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Keeps every weight."""
    del runner
    return problem.dense()
