"""Random masks: the baseline that every other pruner should beat."""

from typing import Any

import jax

from vpns_jax import sparsity
from vpns_jax.pruners.any_model import Prunable, Weights
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner

PyTree = Any


def random(
    params: PyTree,
    density: float,
    key: jax.Array,
    *,
    pattern: sparsity.Pattern = sparsity.SINGLE,
    prunable: Prunable = sparsity.prunable,
) -> PyTree:
    """Keeps random weights of any model, or random groups of them, each with the same probability.

    Args:
      params: the weights, any pytree of arrays.
      density: the share to keep, in (0, 1].
      key: the random key.
      pattern: what masks may look like.
      prunable: gives the part of the weights that may be pruned.

    Returns:
      The mask, a tree of bool like `params`, with None where nothing may be pruned.

    Raises:
      UserError: an argument does not suit the others.
    """
    weights = Weights.of(params, density, pattern, prunable)
    return weights.keep(pattern.random(weights.scored, key))


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Keeps random weights, or random groups of them, each with the same probability.

    Args:
      problem: the network, data, density and random key.
      runner: takes a note if ties decided much.

    Returns:
      The sparse network.
    """
    return problem.by_score(problem.pattern.random(problem.scored, problem.key), runner)
