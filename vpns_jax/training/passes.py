"""One iteration, from its batches to its update.

An iteration is a sequence of passes, which is all that tells the protocols apart. The paper's is one prompted,
augmented batch. The released code's ("reference") is a prompted, un-augmented batch A and a plain, augmented batch
B, drawn from two independent shuffles; B moves everything but the prompt.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vpns_jax import xla
from vpns_jax.training import optimizers
from vpns_jax.training.batches import Batch
from vpns_jax.training.metrics import Metrics, cross_entropy
from vpns_jax.training.network import Network, Subnetwork, forward
from vpns_jax.training.state import Groups, TrainState, weights_of
from vpns_jax.training.views import View

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Input:
    """What a pass does to its images."""

    prompted: bool
    augmented: bool


PROTOCOLS = {
    "paper": (Input(prompted=True, augmented=True),),
    "reference": (Input(prompted=True, augmented=False), Input(prompted=False, augmented=True)),
}


def inputs(protocol: str, *, prompted: bool) -> tuple[Input, ...]:
    """The inputs of an iteration's passes.

    Args:
      protocol: one of `PROTOCOLS`.
      prompted: whether the network has a prompt. Without one the released code's come down to HYDRA's: one, plain,
        augmented.
    """
    plain = tuple(one for one in PROTOCOLS[protocol] if not one.prompted)
    return plain if plain and not prompted else PROTOCOLS[protocol]


@dataclasses.dataclass(frozen=True)
class Pass:
    """One forward and backward pass: the network whose loss it takes, and the groups it moves. Hashable.

    Attributes:
      view: from groups to the weights and the mask that are run.
      moves: names of the groups that get a gradient and an update.
      prompted: whether the prompt is on the images.
      augmented: whether the images are cropped and flipped at random.
      train: batch statistics (which move the running ones) and dropout if true, as in evaluation if not.
    """

    view: View
    moves: frozenset[str]
    prompted: bool
    augmented: bool
    train: bool


@dataclasses.dataclass(frozen=True)
class Stage:
    """What an iteration does. Hashable, so static under `jax.jit`: two equal stages share their compiled programs.

    Attributes:
      network: the static half of the network.
      view: the mask of the network that the stage trains.
      passes: of an iteration, in order.
      optimizers: (group, optax transformation) for each group that is learned.
      batch_size: images in a batch of a pass.
    """

    network: Network
    view: View
    passes: tuple[Pass, ...]
    optimizers: tuple[tuple[str, optax.GradientTransformation], ...]
    batch_size: int

    def subnetwork(self, state: TrainState) -> Subnetwork:
        """The sparse network that a state of this stage stands for."""
        groups = state.groups
        return Subnetwork(
            weights_of(groups), self.view.keep(groups), state.batch_stats, groups["prompt"], state.mapping
        )


def iterate(
    stage: Stage, state: TrainState, batches: tuple[Batch, ...], rng: jax.Array
) -> tuple[TrainState, tuple[Metrics, ...]]:
    """One iteration: the stage's passes, one after the other.

    Args:
      stage: what is done; static.
      state: where it starts.
      batches: one for each pass.
      rng: key of everything that is drawn.

    Returns:
      The next state, and the metrics of each pass.
    """
    metrics = []
    for i, (one, batch) in enumerate(zip(stage.passes, batches, strict=True)):
        state, seen = _run(stage, one, state, batch, jax.random.fold_in(rng, i))
        metrics.append(seen)
    return dataclasses.replace(state, step=state.step + 1), tuple(metrics)


def update(stage: Stage, one: Pass, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
    """One pass: a loss, its gradient in the groups that move, and their partitioned update."""
    images, labels = batch

    def loss(moving: Groups) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
        groups = {**state.groups, **moving}
        weights, mask = one.view(groups)
        logits, batch_stats = forward(
            stage.network,
            weights=weights,
            mask=mask,
            batch_stats=state.batch_stats,
            prompt=groups["prompt"] if one.prompted else None,
            images=images,
            mapping=state.mapping,
            train=one.train,
            rng=rng,
        )
        metrics = Metrics.of(logits=logits, labels=labels)
        return cross_entropy(logits=logits, labels=labels), (metrics, batch_stats)

    moving = {name: state.learned[name] for name in one.moves}
    gradients, (metrics, batch_stats) = jax.grad(loss, has_aux=True)(moving)

    # The groups that this pass does not move keep their values and their optimizers' state.
    held = {name: jax.tree.map(jnp.zeros_like, x) for name, x in state.learned.items() if name not in one.moves}
    optimizer = optimizers.joint(stage.optimizers, one.moves)
    updates, opt_state = optimizer.update({**gradients, **held}, state.opt_state, state.learned)
    learned = optax.apply_updates(state.learned, updates)
    return dataclasses.replace(state, learned=learned, opt_state=opt_state, batch_stats=batch_stats), metrics


def _run(stage: Stage, one: Pass, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
    """`update`; one of several passes ends before the next begins."""
    if len(stage.passes) == 1:
        return update(stage, one, state, batch, rng)
    frozen = state.frozen

    def run(carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        now, _ = carry
        after, seen = update(stage, one, dataclasses.replace(now, frozen=frozen), batch, rng)
        return dataclasses.replace(after, frozen={}), seen

    # What is frozen is no part of what the pass changes, so it is no part of what it carries.
    after, seen = xla.by_itself(run, (dataclasses.replace(state, frozen={}), Metrics.empty()), state.step)
    return dataclasses.replace(after, frozen=frozen), seen
