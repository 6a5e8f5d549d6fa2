"""Fisher: keeps the weights without which the loss would rise most, by the diagonal of the empirical Fisher matrix.

The loss without weight w rises by w^2 h / 2 at a minimum, with h the diagonal of the Hessian (optimal brain damage,
LeCun et al. 1989). The mean square of the gradient stands for h (Theis et al., arXiv 1801.05787).
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from vpns_jax import sparsity
from vpns_jax.pruners.any_model import Loss, Prunable, Weights, checked, mean_squared_gradient
from vpns_jax.pruners.methods.scoring import task_batches, task_loss
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner

PyTree = Any


def fisher(
    loss_fn: Loss,
    params: PyTree,
    batches: Iterable[Any],
    density: float,
    *,
    pattern: sparsity.Pattern = sparsity.SINGLE,
    prunable: Prunable = sparsity.prunable,
) -> PyTree:
    """Keeps the largest w^2 E[g^2] of any model, with the gradient g of its loss on each batch.

    Args:
      loss_fn: the loss of (params, batch), a scalar.
      params: the weights, any pytree of arrays.
      batches: the batches, each any pytree; of one example each for the Fisher matrix itself. In larger batches the
        gradients of examples are averaged before they are squared.
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
    return weights.keep(scores(loss_fn, params, weights.scored, checked(loss_fn, params, batches, "fisher"), pattern))


def scores(loss_fn: Loss, params: PyTree, scored: PyTree, batches: Iterable[Any], pattern: sparsity.Pattern) -> PyTree:
    """Computes w^2 E[g^2] / 2.

    Args:
      loss_fn: the loss of (params, batch).
      params: all weights.
      scored: the scored arrays w.
      batches: the batches.
      pattern: says where the scored arrays belong in the weights.

    Returns:
      A tree like `scored`.
    """
    return sparsity.fisher(scored, mean_squared_gradient(loss_fn, params, scored, batches, pattern))


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Keeps the largest w^2 E[g^2], with the label mapping under which g was computed.

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
    rise = scores(task_loss(problem), source.weights, problem.scored, batches, problem.pattern)
    runner.spend("prune", problem.options.batches)
    return dataclasses.replace(source, mask=problem.keep(rise, runner=runner))
