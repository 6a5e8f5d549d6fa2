"""No pruning: the dense network, with which the others are compared."""

from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Keeps every weight.

    Args:
      problem: the network and data.
      runner: not used.

    Returns:
      The dense network.
    """
    del runner
    return problem.dense()
