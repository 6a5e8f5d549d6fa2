"""SNIP: keeps the weights on whose masks the loss depends most (Lee et al., arXiv 1810.02340)."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from vpns_jax import sparsity
from vpns_jax.pruners.any_model import Loss, Prunable, Weights, checked, mean_gradient
from vpns_jax.pruners.methods.scoring import task_batches, task_loss
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner

PyTree = Any


def snip(
    loss_fn: Loss,
    params: PyTree,
    batches: Iterable[Any],
    density: float,
    *,
    pattern: sparsity.Pattern = sparsity.SINGLE,
    prunable: Prunable = sparsity.prunable,
) -> PyTree:
    """Keeps the largest |w g| of any model, with the gradient g of its loss averaged over batches.

    Args:
      loss_fn: the loss of (params, batch), a scalar.
      params: the weights, any pytree of arrays.
      batches: the batches, each any pytree.
      density: the share to keep, in (0, 1].
      pattern: what masks may look like.
      prunable: gives the part of the weights that may be pruned.

    Returns:
      The mask, a tree of bool like `params`, with None where nothing may be pruned.

    Raises:
      UserError: an argument does not suit the others, or the scores are all equal or not finite (not checked under
        `jax.jit`, or if nothing is pruned).
    """
    weights = Weights.of(params, density, pattern, prunable)
    return weights.keep(scores(loss_fn, params, weights.scored, checked(loss_fn, params, batches, "snip"), pattern))


def scores(loss_fn: Loss, params: PyTree, scored: PyTree, batches: Iterable[Any], pattern: sparsity.Pattern) -> PyTree:
    """Computes |w g|.

    Args:
      loss_fn: the loss of (params, batch).
      params: all weights.
      scored: the scored arrays w.
      batches: the batches.
      pattern: says where the scored arrays belong in the weights.

    Returns:
      A tree like `scored`.
    """
    gradient = mean_gradient(loss_fn, params, scored, batches, pattern)
    return sparsity.connection_sensitivity(scored, gradient)


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
    batches = task_batches(problem, source, temperature=1.0)
    sensitivity = scores(task_loss(problem), source.weights, problem.scored, batches, problem.pattern)
    runner.spend("prune", problem.options.batches)
    return dataclasses.replace(source, mask=problem.keep(sensitivity, runner=runner))
