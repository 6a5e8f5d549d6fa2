"""OMP: one-shot magnitude pruning (Han et al., arXiv 1506.02626)."""

from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Keeps the weights of largest magnitude.

    Args:
      problem: the network, data and density.
      runner: takes a note if ties decided much.

    Returns:
      The sparse network.

    Raises:
      UserError: all weights have the same magnitude, or are not finite.
    """
    return problem.by_score(problem.pattern.magnitude(problem.prunable), runner)
