"""A stage is a value (`passes.Stage`): what an iteration does. A constructor makes it together with its first state.

stage, state = learn_scores(network, pretrained, scores, recipe, ...)   # VPNs, HYDRA
stage, state = learn_weights(network, subnetwork, recipe, ...)          # retraining, fine-tuning, IMP
stage, state = learn_both(network, pretrained, scores, recipe, ...)     # BiP
stage, state = learn_prompt(network, finished, recipe, ...)             # methods with +posthoc
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
from vpns_jax.training.passes import Pass, Preparation, Stage, preparations
from vpns_jax.training.state import Groups, TrainState
from vpns_jax.training.views import BilevelMask, FixedMask, LearnedMask, View

PyTree = Any
# Which passes that learn scores run in training mode: all, the prompted ones, or none; see `Recipe.batch_norm`.
BATCH_NORMS = ("update", "prompted", "frozen")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a stage is trained, whatever it learns.

    Attributes:
      protocol: a key of `passes.PROTOCOLS`.
      batch_size: images in a batch.
      epochs: the length of the schedules. (The runner decides how long the stage runs.)
      optimizers: the optimizer of each group; those of groups that the stage does not learn are not read.
      batch_norm: one of `BATCH_NORMS`, for passes that learn scores: "update" runs every pass in training mode (it uses
        batch statistics, updates the running ones and applies dropout), "prompted" only the passes that the protocol
        prompts, "frozen" none. Passes that learn weights always run in training mode.
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
    """Makes stage 1: min over scores and prompt of the loss of the masked, frozen network (VPNs, eq. 2).

    Args:
      network: the static half.
      start: the pretrained network, with the initial prompt and mapping.
      scores: the initial scores, a subtree of `start.weights`.
      recipe: optimizers of "scores", "prompt" and, with a new head, "head".
      iterations: the iterations of an epoch, for schedules.
      pruned: how much to prune, from `Pattern.amount`.
      pattern: which weights are pruned together.
      new_head: whether the head is learned, too.

    Returns:
      The stage and its first state, which owns its arrays.
    """
    learned = {"scores": scores, "prompt": start.prompt} | ({"head": start.weights[HEAD]} if new_head else {})
    frozen = {"weights": start.weights, "pruned": _typed(pruned)}
    view = LearnedMask(pattern)
    passes = tuple(
        _pass(view, learned, preparation, train=in_training_mode(recipe, preparation))
        for preparation in _preparations(network, recipe)
    )
    return _begin(network, view, passes, recipe, iterations, start, learned, frozen)


def learn_weights(network: Network, start: Subnetwork, recipe: Recipe, iterations: int) -> tuple[Stage, TrainState]:
    """Makes stage 2: min over weights and prompt of the loss under a fixed mask (VPNs, eq. 3).

    Args:
      network: the static half.
      start: the network with its mask; {} masks nothing.
      recipe: optimizers of "weights" and "prompt".
      iterations: the iterations of an epoch, for schedules.

    Returns:
      The stage and its first state, which owns its arrays.
    """
    learned = {"weights": start.weights, "prompt": start.prompt}
    frozen = {"packed_mask": sparsity.pack(start.mask)}
    view = FixedMask()
    passes = tuple(_pass(view, learned, preparation, train=True) for preparation in _preparations(network, recipe))
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
    """Makes BiP's stage (arXiv 2210.04092): steps of the weights, then of the scores, on different batches.

    The lower level updates only the weights, under the mask. The upper level updates scores and prompt. The mask's
    gradient takes into account how the best weights depend on the mask, but not how they depend on the prompt.

    Args:
      network: the static half.
      start: the pretrained network, with the initial prompt and mapping; its mask is not used.
      scores: the initial scores, a subtree of `start.weights`.
      recipe: optimizers of "scores", "weights" and "prompt".
      iterations: the iterations of an epoch, for schedules.
      pruned: how much to prune, from `Pattern.amount`.
      pattern: which weights are pruned together.
      gamma: the factor of the lower level's L2 penalty, above zero.

    Returns:
      The stage and its first state, which owns its arrays.
    """
    learned = {"scores": scores, "weights": start.weights, "prompt": start.prompt}
    lower, upper = LearnedMask(pattern), BilevelMask(pattern, gamma)
    preparations = _preparations(network, recipe)
    passes = (
        *(_pass(lower, {"weights"}, preparation, train=True) for preparation in preparations),
        *(
            _pass(upper, {"scores", "prompt"}, preparation, train=in_training_mode(recipe, preparation))
            for preparation in preparations
        ),
    )
    return _begin(network, lower, passes, recipe, iterations, start, learned, {"pruned": _typed(pruned)})


def learn_prompt(network: Network, start: Subnetwork, recipe: Recipe, iterations: int) -> tuple[Stage, TrainState]:
    """Makes a stage that fits a prompt alone to a finished network, which runs in eval mode (VPNs, section 3).

    Args:
      network: the static half.
      start: the finished network; its own prompt is not used.
      recipe: the optimizer of "prompt".
      iterations: the iterations of an epoch, for schedules.

    Returns:
      The stage and its first state, which owns its arrays.
    """
    learned = {"prompt": network.prompt.init()}
    frozen = {"weights": start.weights, "packed_mask": sparsity.pack(start.mask)}
    view = FixedMask()
    passes = tuple(
        _pass(view, learned, preparation, train=False)
        for preparation in _preparations(network, recipe)
        if preparation.prompted
    )
    return _begin(network, view, passes, recipe, iterations, start, learned, frozen)


def _typed(numbers: PyTree) -> PyTree:
    """Numbers as arrays that are not weakly typed, as a checkpoint gives them back."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(x).dtype), numbers)


def _preparations(network: Network, recipe: Recipe) -> tuple[Preparation, ...]:
    return preparations(recipe.protocol, prompted=network.prompted)


def _pass(view: View, groups: Groups | set[str], preparation: Preparation, *, train: bool) -> Pass:
    """A pass that updates all of these groups; the prompt only if the images are prompted."""
    moves = frozenset(groups) if preparation.prompted else frozenset(groups) - {"prompt"}
    return Pass(view, moves, preparation, train)


def in_training_mode(recipe: Recipe, preparation: Preparation) -> bool:
    """Whether a pass that learns scores, or computes them, runs in training mode; see `Recipe.batch_norm`."""
    return recipe.batch_norm == "update" or (recipe.batch_norm == "prompted" and preparation.prompted)


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
    """A stage of these passes, with an optimizer for each learned group, and its first state."""
    transformations = []
    for group in learned:
        # A group that no pass moves, such as a prompt in plain passes, has a schedule, too.
        updates = max(1, iterations * sum(group in pass_.moves for pass_ in passes))
        transformations.append((group, optimizers.make(recipe.optimizers[group], Schedule(recipe.epochs, updates))))
    stage = Stage(network, view, passes, tuple(transformations), recipe.batch_size)
    state = _first_state(stage.optimizers, learned, start.batch_stats, start.mapping)
    return stage, dataclasses.replace(state, frozen=frozen)


@functools.partial(jax.jit, static_argnames=("transformations",))
def _first_state(
    transformations: tuple[tuple[str, optax.GradientTransformation], ...],
    learned: Groups,
    batch_stats: PyTree,
    mapping: jax.Array,
) -> TrainState:
    """The state with fresh optimizers, and with copies of all arrays that an epoch changes in place."""
    learned, batch_stats, mapping = jax.tree.map(jnp.copy, (learned, batch_stats, mapping))
    opt_state = optimizers.joint(transformations).init(learned)
    state = TrainState(jnp.int32(0), learned, {}, opt_state, batch_stats, mapping.astype(jnp.int32))
    return sharding.split_parameters(state)
