"""GraSP: keeps the weights whose removal would reduce gradient flow most (Wang et al., arXiv 2002.07376)."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from vpns_jax import sparsity
from vpns_jax.pruners.any_model import Loss, Prunable, Weights, checked, mean_gradient, mean_hessian_vector
from vpns_jax.pruners.methods.scoring import task_batches, task_loss
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner

PyTree = Any


def grasp(
    loss_fn: Loss,
    params: PyTree,
    batches: Iterable[Any],
    density: float,
    *,
    pattern: sparsity.Pattern = sparsity.SINGLE,
    prunable: Prunable = sparsity.prunable,
) -> PyTree:
    """Keeps the largest w (H g) of any model, signs included; gradient g and Hessian H are averaged over batches.

    Args:
      loss_fn: the loss of (params, batch), a scalar that can be derived twice; the paper divides logits by 200 in it.
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
    all_batches = checked(loss_fn, params, batches, "grasp")
    return weights.keep(scores(loss_fn, params, weights.scored, lambda: all_batches, pattern), signed=True)


def scores(
    loss_fn: Loss, params: PyTree, scored: PyTree, draw: Callable[[], Iterable[Any]], pattern: sparsity.Pattern
) -> PyTree:
    """Computes w (H g).

    Args:
      loss_fn: the loss of (params, batch).
      params: all weights.
      scored: the scored arrays w.
      draw: gives the batches, the same at every call.
      pattern: says where the scored arrays belong in the weights.

    Returns:
      A tree like `scored`.
    """
    gradient = mean_gradient(loss_fn, params, scored, draw(), pattern)
    return sparsity.gradient_flow(scored, mean_hessian_vector(loss_fn, params, scored, gradient, draw(), pattern))


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

    def draw() -> Iterable[Any]:
        return task_batches(problem, source, temperature=temperature)

    flow = scores(task_loss(problem), source.weights, problem.scored, draw, problem.pattern)
    # The gradient takes one pass for each batch, the product with the Hessian two.
    runner.spend("prune", 3 * problem.options.batches)
    return dataclasses.replace(source, mask=problem.keep(flow, signed=True, runner=runner))
