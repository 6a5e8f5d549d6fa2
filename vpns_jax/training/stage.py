"""A stage is a value: what an iteration does, and the optimizers that do it. One constructor makes it and its state.

stage, state = learn_scores(network, pretrained, scores, recipe, ...)   # VPNs, HYDRA
stage, state = learn_weights(network, subnetwork, recipe, ...)          # fine-tuning, IMP
stage, state = learn_both(network, pretrained, scores, recipe, ...)     # BiP
stage, state = learn_prompt(network, finished, recipe, ...)
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vpns_jax import sparsity
from vpns_jax.models import HEAD
from vpns_jax.parallel import sharding
from vpns_jax.training import optimizers
from vpns_jax.training.network import Network, Subnetwork
from vpns_jax.training.optimizers import Optimizer, Schedule
from vpns_jax.training.passes import Input, Pass, Stage, inputs
from vpns_jax.training.state import Groups, TrainState
from vpns_jax.training.views import BilevelMask, FixedMask, LearnedMask, View

PyTree = Any
# Which passes that learn scores run on, and move, batch statistics.
BATCH_NORMS = ("update", "prompted", "frozen")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a stage is trained, whatever it learns.

    Attributes:
      protocol: one of `passes.PROTOCOLS`.
      batch_size: images in a batch.
      epochs: how long schedules are; how long a stage runs is the runner's to know.
      optimizers: by group; those of groups that a stage does not learn are not read.
      batch_norm: one of `BATCH_NORMS`, for passes that learn scores: every pass uses and moves batch statistics, only
        the prompted ones do, or none does and the running statistics stand. Weights are always learned on batch
        statistics.
    """

    protocol: str
    batch_size: int
    epochs: int
    optimizers: Mapping[str, Optimizer | optax.GradientTransformation]
    batch_norm: str = "update"


def learn_scores(
    network: Network,
    start: Subnetwork,
    scores: PyTree,
    recipe: Recipe,
    iterations: int,
    *,
    pruned: PyTree,
    pattern: sparsity.Pattern,
    new_head: bool = False,
) -> tuple[Stage, TrainState]:
    """Stage 1: min over scores and prompt of the loss of the masked, frozen network (VPNs, eq. 2).

    Args:
      network: the static half.
      start: the pretrained network, with the prompt and the mapping to begin with.
      scores: where the scores begin, a subtree of `start.weights`.
      recipe: optimizers of "scores", "prompt" and, with a new head, "head".
      iterations: of an epoch, for schedules.
      pruned: how many groups of weights to prune, from `sparsity.pruned_groups`.
      pattern: what these groups are.
      new_head: whether the head is learned beside the scores.

    Returns:
      The stage, and its first state, which owns its arrays.
    """
    learned = {"scores": scores, "prompt": start.prompt} | ({"head": start.weights[HEAD]} if new_head else {})
    frozen = {"weights": start.weights, "pruned": jax.tree.map(jnp.int32, pruned)}
    view = LearnedMask(pattern)
    passes = tuple(_pass(view, learned, one, train=_on_batch(recipe, one)) for one in _inputs(network, recipe))
    return _begin(network, view, passes, recipe, iterations, start, learned, frozen)


def learn_weights(network: Network, start: Subnetwork, recipe: Recipe, iterations: int) -> tuple[Stage, TrainState]:
    """Stage 2: min over weights and prompt under the mask of `start`, which stays (VPNs, eq. 3).

    Args:
      network: the static half.
      start: the sparse network; an empty mask is none.
      recipe: optimizers of "weights" and "prompt".
      iterations: of an epoch, for schedules.

    Returns:
      The stage, and its first state, which owns its arrays.
    """
    learned = {"weights": start.weights, "prompt": start.prompt}
    frozen = {"packed_mask": sparsity.pack(start.mask)}
    view = FixedMask()
    passes = tuple(_pass(view, learned, one, train=True) for one in _inputs(network, recipe))
    return _begin(network, view, passes, recipe, iterations, start, learned, frozen)


def learn_both(
    network: Network,
    start: Subnetwork,
    scores: PyTree,
    recipe: Recipe,
    iterations: int,
    *,
    pruned: PyTree,
    pattern: sparsity.Pattern,
    gamma: float,
) -> tuple[Stage, TrainState]:
    """BiP (arXiv 2210.04092): a step of the weights under the mask, then one of the scores; each on its own batches.

    The lower level moves the weights alone. The upper one moves scores and prompt; the mask's gradient contains how
    the weights answer to it. How they depend on the prompt is left out.

    Args:
      network: the static half.
      start: the pretrained network, with the prompt and the mapping to begin with.
      scores: where the scores begin, a subtree of `start.weights`.
      recipe: optimizers of "scores", "weights" and "prompt".
      iterations: of an epoch, for schedules.
      pruned: how many groups of weights to prune, from `sparsity.pruned_groups`.
      pattern: what these groups are.
      gamma: strength of the lower level's penalty, above zero.

    Returns:
      The stage, and its first state, which owns its arrays.
    """
    learned = {"scores": scores, "weights": start.weights, "prompt": start.prompt}
    lower, upper = LearnedMask(pattern), BilevelMask(pattern, gamma)
    found = _inputs(network, recipe)
    passes = (
        *(_pass(lower, {"weights"}, one, train=True) for one in found),
        *(_pass(upper, {"scores", "prompt"}, one, train=_on_batch(recipe, one)) for one in found),
    )
    return _begin(
        network, lower, passes, recipe, iterations, start, learned, {"pruned": jax.tree.map(jnp.int32, pruned)}
    )


def learn_prompt(network: Network, start: Subnetwork, recipe: Recipe, iterations: int) -> tuple[Stage, TrainState]:
    """The prompt alone, on a finished network (VPNs, section 3), which runs as it will be used.

    Args:
      network: the static half.
      start: the finished network; its own prompt is not read.
      recipe: the optimizer of "prompt".
      iterations: of an epoch, for schedules.

    Returns:
      The stage, and its first state, which owns its arrays.
    """
    learned = {"prompt": network.prompt.init()}
    frozen = {"weights": start.weights, "packed_mask": sparsity.pack(start.mask)}
    view = FixedMask()
    passes = tuple(_pass(view, learned, one, train=False) for one in _inputs(network, recipe) if one.prompted)
    return _begin(network, view, passes, recipe, iterations, start, learned, frozen)


def _inputs(network: Network, recipe: Recipe) -> tuple[Input, ...]:
    return inputs(recipe.protocol, prompted=network.prompted)


def _pass(view: View, groups: Groups | set[str], one: Input, *, train: bool) -> Pass:
    """A pass that moves all of these groups, the prompt only if it is on."""
    moves = frozenset(groups) if one.prompted else frozenset(groups) - {"prompt"}
    return Pass(view, moves, prompted=one.prompted, augmented=one.augmented, train=train)


def _on_batch(recipe: Recipe, one: Input) -> bool:
    """Whether a pass that learns scores runs on batch statistics, and moves the running ones."""
    return recipe.batch_norm == "update" or (recipe.batch_norm == "prompted" and one.prompted)


def _begin(
    network: Network,
    view: View,
    passes: tuple[Pass, ...],
    recipe: Recipe,
    iterations: int,
    start: Subnetwork,
    learned: Groups,
    frozen: Groups,
) -> tuple[Stage, TrainState]:
    made = []
    for group in learned:
        updates = iterations * sum(group in one.moves for one in passes)
        made.append((group, optimizers.make(recipe.optimizers[group], Schedule(recipe.epochs, updates))))
    stage = Stage(network, view, passes, tuple(made), recipe.batch_size)
    state = _first_state(stage.optimizers, learned, start.batch_stats, start.mapping)
    return stage, dataclasses.replace(state, frozen=frozen)


@functools.partial(jax.jit, static_argnames=("made",))
def _first_state(
    made: tuple[tuple[str, optax.GradientTransformation], ...], learned: Groups, batch_stats: PyTree, mapping: jax.Array
) -> TrainState:
    """Fresh optimizers, and own copies of all that an epoch changes in place, where training will have them."""
    learned, batch_stats, mapping = jax.tree.map(jnp.copy, (learned, batch_stats, mapping))
    opt_state = optimizers.joint(made).init(learned)
    state = TrainState(jnp.int32(0), learned, {}, opt_state, batch_stats, mapping.astype(jnp.int32))
    return sharding.split_parameters(state)
