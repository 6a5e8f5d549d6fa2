"""One iteration, from its batches to its update.

An iteration is a sequence of passes, and the protocol says which. The paper's has one prompted, augmented batch. The
released code's ("reference") has a prompted batch without augmentation, then a plain, augmented batch from another
shuffle. A plain pass never updates the prompt.

Drawing and augmenting the batches, as each pass's preparation says, is `epochs.py`.
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
class Preparation:
    """How a pass prepares its images.

    Attributes:
      prompted: whether the network's prompt is applied. A prompt of kind "none" changes nothing.
      augmented: whether the images are cropped and flipped at random.
    """

    prompted: bool
    augmented: bool


PROTOCOLS = {
    "paper": (Preparation(prompted=True, augmented=True),),
    "reference": (Preparation(prompted=True, augmented=False), Preparation(prompted=False, augmented=True)),
}


def preparations(protocol: str, *, prompted: bool) -> tuple[Preparation, ...]:
    """Lists how each pass of an iteration prepares its images.

    Args:
      protocol: a key of `PROTOCOLS`.
      prompted: whether the network has a prompt. Without one the reference protocol has a single plain, augmented pass,
        as HYDRA's code does.

    Returns:
      One preparation for each pass.
    """
    plain = tuple(preparation for preparation in PROTOCOLS[protocol] if not preparation.prompted)
    return plain if plain and not prompted else PROTOCOLS[protocol]


@dataclasses.dataclass(frozen=True)
class Pass:
    """One forward and backward pass. Hashable.

    Attributes:
      view: turns groups into the weights and the mask of the network whose loss is taken.
      moves: names of the groups that get a gradient and an update.
      preparation: how its images are prepared.
      train: True for batch statistics (which update the running ones) and dropout; False to run as in evaluation.
    """

    view: View
    moves: frozenset[str]
    preparation: Preparation
    train: bool


@dataclasses.dataclass(frozen=True)
class Stage:
    """What an iteration does. Hashable, so static under `jax.jit`: two equal stages share their compiled programs.

    Attributes:
      network: the static half of the network.
      view: the mask of the network that the stage trains.
      passes: the passes of an iteration, in order.
      optimizers: pairs (group, optax transformation), one for each group that is learned.
      batch_size: images in a batch of a pass.
    """

    network: Network
    view: View
    passes: tuple[Pass, ...]
    optimizers: tuple[tuple[str, optax.GradientTransformation], ...]
    batch_size: int

    def subnetwork(self, state: TrainState) -> Subnetwork:
        """Makes the sparse network of a state.

        Args:
          state: a state of this stage.

        Returns:
          The arrays that the network needs to run.
        """
        groups = state.groups
        return Subnetwork(
            weights_of(groups), self.view.keep(groups), state.batch_stats, groups["prompt"], state.mapping
        )


def iterate(
    stage: Stage, state: TrainState, batches: tuple[Batch, ...], rng: jax.Array
) -> tuple[TrainState, tuple[Metrics, ...]]:
    """Runs one iteration: the stage's passes, one after another.

    Args:
      stage: what an iteration does; static.
      state: the state before.
      batches: one batch for each pass.
      rng: the key of everything random.

    Returns:
      The next state, and the metrics of each pass.
    """
    metrics = []
    for i, (pass_, batch) in enumerate(zip(stage.passes, batches, strict=True)):
        state, seen = _run(stage, pass_, state, batch, jax.random.fold_in(rng, i))
        metrics.append(seen)
    return dataclasses.replace(state, step=state.step + 1), tuple(metrics)


def update(stage: Stage, pass_: Pass, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
    """Runs one pass: the loss, its gradient in the groups that move, and their update.

    Args:
      stage: the stage; static.
      pass_: the pass; static.
      state: the state before.
      batch: images, uint8 [b, h, w, c], and labels, int32 [b].
      rng: the key of everything random.

    Returns:
      The next state, and the metrics of the batch.
    """
    images, labels = batch

    def loss(moving: Groups) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
        groups = {**state.groups, **moving}
        weights, mask = pass_.view(groups)
        logits, batch_stats = forward(
            stage.network,
            weights=weights,
            mask=mask,
            batch_stats=state.batch_stats,
            prompt=groups["prompt"] if pass_.preparation.prompted else None,
            images=images,
            mapping=state.mapping,
            train=pass_.train,
            rng=rng,
        )
        metrics = Metrics.of(logits=logits, labels=labels)
        return cross_entropy(logits=logits, labels=labels), (metrics, batch_stats)

    moving = {name: state.learned[name] for name in pass_.moves}
    gradients, (metrics, batch_stats) = jax.grad(loss, has_aux=True)(moving)

    # The groups that this pass does not move keep their values and their optimizers' state.
    held = {name: jax.tree.map(jnp.zeros_like, x) for name, x in state.learned.items() if name not in pass_.moves}
    optimizer = optimizers.joint(stage.optimizers, pass_.moves)
    updates, opt_state = optimizer.update({**gradients, **held}, state.opt_state, state.learned)
    learned = optax.apply_updates(state.learned, updates)
    return dataclasses.replace(state, learned=learned, opt_state=opt_state, batch_stats=batch_stats), metrics


def _run(stage: Stage, pass_: Pass, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, Metrics]:
    """Runs `update` so that, of several passes, each ends before the next begins."""
    if len(stage.passes) == 1:
        return update(stage, pass_, state, batch, rng)
    frozen = state.frozen

    def run(carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        now, _ = carry
        after, seen = update(stage, pass_, dataclasses.replace(now, frozen=frozen), batch, rng)
        return dataclasses.replace(after, frozen={}), seen

    # Frozen groups do not change, so they are not carried through the loop.
    after, seen = xla.by_itself(run, (dataclasses.replace(state, frozen={}), Metrics.empty()), state.step)
    return dataclasses.replace(after, frozen=frozen), seen
