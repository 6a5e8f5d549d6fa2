"""SNIP: keeps the weights on whose masks the loss depends most (Lee et al., arXiv 1810.02340)."""

import dataclasses

from vpns_jax import sparsity
from vpns_jax.pruners.problem import Problem
from vpns_jax.pruners.scoring import mean_gradient
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Keeps the largest |w g|, with the label mapping under which g was computed.

    Args:
      problem: the network, data and density.
      runner: trains, and counts passes.

    Returns:
      The sparse network.

    Raises:
      UserError: the scores are all equal, or not finite.
    """
    source = problem.dense()
    gradient = mean_gradient(problem, runner, source, temperature=1.0)
    scores = sparsity.connection_sensitivity(problem.scored, gradient)
    return dataclasses.replace(source, mask=problem.keep(scores, runner=runner))
