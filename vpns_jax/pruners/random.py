"""Random masks: the baseline that every other pruner should beat."""

from vpns_jax import sparsity
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Keeps random weights, or random groups of them, each with the same probability.

    Args:
      problem: the network, data, density and random key.
      runner: takes a note if ties decided much.

    Returns:
      The sparse network.
    """
    return problem.by_score(sparsity.random(problem.scored, problem.key), runner)
