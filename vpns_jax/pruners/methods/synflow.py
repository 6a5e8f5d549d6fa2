"""SynFlow: weights scored by the flow through them, without any data (Tanaka et al., arXiv 2006.05467).

Every parameter is made positive and the network is run on an image of ones. Then

    R = sum of logits,   S = w * dR/dw

and S is the flow through weight w. The flow into a unit equals the flow out of it, so no layer is emptied while another
still has weights to prune.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vpns_jax import sparsity, trees
from vpns_jax.errors import UserError
from vpns_jax.options import Range, option
from vpns_jax.pruners.any_model import Prunable, Weights
from vpns_jax.pruners.flow import Apply, check_exponentials, synaptic_flow
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Options:
    """How SynFlow prunes."""

    group: ClassVar[str] = "synflow"

    rounds: int = option(
        100,
        "Rounds of scoring and pruning; each prunes a part of the remaining weights.",
        Range(1, 10_000, "each is a pass through the network"),
    )


def synflow(
    apply_fn: Apply,
    params: PyTree,
    inputs: PyTree,
    density: float,
    *,
    rounds: int = 100,
    pattern: sparsity.Pattern = sparsity.SINGLE,
    prunable: Prunable = sparsity.prunable,
) -> PyTree:
    """Keeps the weights of any model with the largest flow, in rounds; the data do not matter.

    Flow is conserved by layers that are linear or ReLUs and, in Flax Linen modules, by layer normalization and our
    attention, which are made linear. Batch normalization must run in eval mode. Under `jax.jit`, all rounds are one
    loop of the program; TPUs lack the float64 that it needs.

    Args:
      apply_fn: the network, a function of (params, inputs); hashable. It must not fix a lower precision than float64.
      params: the weights, any pytree of float arrays. Give running statistics in them, too: all are made positive.
      inputs: inputs of one example, or their shapes; only shapes matter, since ones take their place.
      density: the share to keep, in (0, 1].
      rounds: the number of rounds.
      pattern: what masks may look like.
      prunable: gives the part of the weights that may be pruned.

    Returns:
      The mask, a tree of bool like `params`, with None where nothing may be pruned.

    Raises:
      UserError: an argument does not suit the others, there is an exponential that is not made linear, or the scores
        are all equal or not finite (not checked under `jax.jit`, or if nothing is pruned).
    """
    if rounds < 1:
        raise UserError(f"synflow.rounds is {rounds}; it needs at least one round")
    weights = Weights.of(params, density, pattern, prunable)
    ones = jax.tree.map(lambda x: jnp.ones(x.shape, jnp.float32), inputs)
    check_exponentials(apply_fn, params, ones, getattr(apply_fn, "__name__", type(apply_fn).__name__))
    amounts = [pattern.amount(weights.kernels, share) for share in schedule(density, rounds)]
    kept, _ = in_rounds(apply_fn, params, weights.scored, ones, amounts, pattern)
    return weights.mask(kept)


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Prunes in rounds of exponentially falling density: each scores the remaining weights and prunes the smallest.

    Args:
      problem: the network and density.
      runner: counts passes, and takes a note if ties decided much.

    Returns:
      The sparse network.

    Raises:
      UserError: the network has a softmax that SynFlow does not know, or the scores are all equal or not finite.
    """
    network, source, size = in_double(problem.network.model), problem.source, problem.network.prompt.canvas_size
    inputs = jnp.ones((1, size, size, 3)), source.batch_stats
    check_exponentials(network, source.weights, inputs, type(network.model).__name__)
    amounts = [problem.pruned(density) for density in schedule(problem.density, problem.options.rounds)]
    kept, scores = in_rounds(network, source.weights, problem.scored, inputs, amounts, problem.pattern)
    runner.spend("prune", len(amounts))
    return problem.sparse(problem.chosen(scores, kept, runner))


@dataclasses.dataclass(frozen=True)
class InEvalMode:
    """A model of ours as a function of its weights, and of an image with batch statistics. Hashable.

    Attributes:
      model: the model.
    """

    model: nn.Module

    def __call__(self, weights: PyTree, inputs: tuple[jax.Array, PyTree]) -> Any:
        """Computes the logits."""
        image, batch_stats = inputs
        return self.model.apply({"params": weights, "batch_stats": batch_stats}, image, train=False)


def in_double(model: nn.Module) -> InEvalMode:
    """Makes the function of a model that computes in float64, where the model has a precision of its own.

    Args:
      model: the model.

    Returns:
      The function.
    """
    return InEvalMode(model.clone(dtype="float64") if hasattr(model, "dtype") else model)


@jax.jit
def _left(scored: PyTree, kept: PyTree) -> PyTree:
    return jax.tree.map(lambda x, keep: x * keep.astype(x.dtype), scored, kept)


def in_rounds(
    apply_fn: Apply, params: PyTree, scored: PyTree, inputs: PyTree, amounts: Sequence[Any], pattern: sparsity.Pattern
) -> tuple[PyTree, PyTree]:
    """Scores what is left, prunes the smallest, and so on.

    Args:
      apply_fn: the network, a function of (params, inputs).
      params: all weights.
      scored: the scored arrays.
      inputs: its inputs.
      amounts: how much is pruned after each round, from `pattern.amount`.
      pattern: what masks may look like.

    Returns:
      What is kept, and the scores by which the last was chosen; trees like `scored`.

    Raises:
      UserError: the scores are all equal, or not finite.
    """

    def next_round(last: tuple[PyTree, PyTree], amount: Any) -> tuple[tuple[PyTree, PyTree], None]:
        kept, _ = last
        left = _left(scored, kept)
        scores = synaptic_flow(apply_fn, params, left, inputs, pattern)
        return (pattern.select_further(scores, kept, amount), scores), None

    last = tuple(jax.tree.map(lambda x, t=dtype: jnp.ones_like(x, t), scored) for dtype in (bool, jnp.float32))
    # The weights may be constants of a traced program; what is computed from them is traced there, too.
    if trees.is_traced((params, scored, inputs, last)):
        return lax.scan(next_round, last, jax.tree.map(lambda *each: jnp.stack(each), *amounts))[0]
    for round_, amount in enumerate(amounts):
        last, _ = next_round(last, amount)
        # Later, a few remaining weights may all have the same flow; in the dense network they may not.
        if round_ == 0 and any(jax.tree.leaves(amounts[-1])):
            sparsity.check_scores(last[1])
    return last


def schedule(density: float, rounds: int) -> tuple[float, ...]:
    """Lists the density after each round: density^(k / rounds).

    Args:
      density: the share of weights to keep in the end.
      rounds: the number of rounds.

    Returns:
      One density for each round.
    """
    return tuple(density ** (k / rounds) for k in range(1, rounds + 1))
