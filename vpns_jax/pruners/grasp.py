"""GraSP: the weights whose removal costs most gradient flow (Wang et al., arXiv 2002.07376)."""

import dataclasses

from vpns_jax import sparsity
from vpns_jax.pruners.problem import Problem
from vpns_jax.pruners.scoring import mean_gradient, mean_hessian_vector
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Keeps the largest w (H g), sign and all, with the label mapping that g was taken with."""
    source, temperature = problem.dense(), problem.options.temperature
    gradient = mean_gradient(problem, runner, source, temperature=temperature)
    hessian_gradient = mean_hessian_vector(problem, runner, source, gradient, temperature=temperature)
    scores = sparsity.gradient_flow(problem.prunable, hessian_gradient)
    return dataclasses.replace(source, mask=problem.keep(scores, signed=True, runner=runner))
