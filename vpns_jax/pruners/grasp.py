"""GraSP: keeps the weights whose removal would reduce gradient flow most (Wang et al., arXiv 2002.07376)."""

import dataclasses

from vpns_jax import sparsity
from vpns_jax.pruners.problem import Problem
from vpns_jax.pruners.scoring import mean_gradient, mean_hessian_vector
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Keeps the largest w (H g), including the sign, with the label mapping under which g was computed.

    Args:
      problem: the network, data and density.
      runner: trains, and counts passes.

    Returns:
      The sparse network.

    Raises:
      UserError: the scores are all equal, or not finite.
    """
    source, temperature = problem.dense(), problem.options.temperature
    gradient = mean_gradient(problem, runner, source, temperature=temperature)
    hessian_gradient = mean_hessian_vector(problem, runner, source, gradient, temperature=temperature)
    scores = sparsity.gradient_flow(problem.scored, hessian_gradient)
    return dataclasses.replace(source, mask=problem.keep(scores, signed=True, runner=runner))
