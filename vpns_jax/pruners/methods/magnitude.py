"""OMP: one-shot magnitude pruning (Han et al., arXiv 1506.02626)."""

from typing import Any

from vpns_jax import sparsity
from vpns_jax.pruners.any_model import Prunable, Weights
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner

PyTree = Any


def magnitude(
    params: PyTree,
    density: float,
    *,
    pattern: sparsity.Pattern = sparsity.SINGLE,
    prunable: Prunable = sparsity.prunable,
) -> PyTree:
    """Keeps the weights of largest magnitude of any model.

    Args:
      params: the weights, any pytree of arrays.
      density: the share to keep, in (0, 1].
      pattern: what masks may look like.
      prunable: gives the part of the weights that may be pruned.

    Returns:
      The mask, a tree of bool like `params`, with None where nothing may be pruned.

    Raises:
      UserError: an argument does not suit the others, or all weights have the same magnitude or are not finite (not
        checked under `jax.jit`, or if nothing is pruned).
    """
    weights = Weights.of(params, density, pattern, prunable)
    return weights.keep(pattern.magnitude(weights.kernels))


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
