"""One iteration of each stage, and evaluation: pure functions, to be jitted (`loop.py` scans them).

An iteration is a sequence of passes, which is all that tells the protocols apart. The paper's is one prompted,
augmented batch. The released code's ("reference") is a prompted, un-augmented batch A and a plain, augmented batch
B, drawn from two independent shuffles; B moves everything but the prompt.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vpns_jax.models import HEAD
from vpns_jax.sparsity import masks
from vpns_jax.training import optim
from vpns_jax.training.forward import Network, forward
from vpns_jax.training.metrics import Metrics, cross_entropy
from vpns_jax.training.state import Fixed, Subnetwork, TrainState

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Pass:
    """One forward and backward pass of an iteration."""

    prompted: bool
    augmented: bool


PROTOCOLS = {
    "paper": (Pass(prompted=True, augmented=True),),
    "reference": (Pass(prompted=True, augmented=False), Pass(prompted=False, augmented=True)),
}
# Which passes of stage prune run on, and move, batch statistics.
BATCH_NORMS = ("update", "prompted", "frozen")


@dataclasses.dataclass(frozen=True)
class Task:
    """The static half of a stage: the network, its protocol and its optimizers. Hashable.

    Attributes:
      stage: "prune" or "retrain".
      batch_norm: one of `BATCH_NORMS`: every pass uses and moves batch statistics, only the prompted ones do, or
        none does and the running statistics stand.
      rules: (group, rule) for each group of `TrainState.learned`.
    """

    stage: str
    network: Network
    protocol: str
    batch_norm: str
    batch_size: int
    rules: tuple[tuple[str, optim.Rule], ...]

    @property
    def passes(self) -> tuple[Pass, ...]:
        return PROTOCOLS[self.protocol]


# The images uint8 [b, h, w, c] and labels int32 [b] of one pass.
Batch = tuple[jax.Array, jax.Array]


def prune_step(
    task: Task, state: TrainState, fixed: Fixed, batches: tuple[Batch, ...], rng: jax.Array
) -> tuple[TrainState, tuple[Metrics, ...]]:
    """Stage 1: min over scores and prompt of the loss of the masked, frozen network (VPNs, eq. 2), one iteration.

    Args:
      batches: one for each pass of the protocol.

    Returns:
      The next state, and each pass's metrics.
    """
    return _iterate(prune_pass, task, state, fixed, batches, rng)


def retrain_step(
    task: Task, state: TrainState, fixed: Fixed, batches: tuple[Batch, ...], rng: jax.Array
) -> tuple[TrainState, tuple[Metrics, ...]]:
    """Stage 2: min over weights and prompt under the fixed mask (VPNs, eq. 3), one iteration; see `prune_step`."""
    return _iterate(retrain_pass, task, state, fixed, batches, rng)


def prune_pass(
    task: Task, one: Pass, state: TrainState, fixed: Fixed, batch: Batch, rng: jax.Array
) -> tuple[TrainState, Metrics]:
    """One pass of stage 1: threshold the scores, run, and update what the pass moves."""
    keep = masks.prune_smallest(state.learned["scores"], fixed.pruned)

    def sparse(learned: dict[str, PyTree]) -> tuple[PyTree, PyTree]:
        return with_head(fixed.weights, learned), masks.attach_gradient(learned["scores"], keep)

    train = task.batch_norm == "update" or (task.batch_norm == "prompted" and one.prompted)
    return _update(task, one, state, sparse, batch, rng, train=train)


def retrain_pass(
    task: Task, one: Pass, state: TrainState, fixed: Fixed, batch: Batch, rng: jax.Array
) -> tuple[TrainState, Metrics]:
    """One pass of stage 2: run under the fixed mask, and update what the pass moves."""

    def sparse(learned: dict[str, PyTree]) -> tuple[PyTree, PyTree]:
        return learned["weights"], fixed.mask

    return _update(task, one, state, sparse, batch, rng, train=True)


@functools.partial(jax.jit, static_argnames=("network", "prompted"))
def predict(network: Network, subnetwork: Subnetwork, images: jax.Array, *, prompted: bool) -> jax.Array:
    """Source logits [b, s] of uint8 images [b, h, w, c] in eval mode, prompted or plain."""
    logits, _ = forward(
        network,
        weights=subnetwork.weights,
        mask=subnetwork.mask,
        batch_stats=subnetwork.batch_stats,
        prompt=subnetwork.prompt if prompted else None,
        images=images,
        mapping=None,
        train=False,
    )
    return logits


def subnetwork(state: TrainState, fixed: Fixed) -> Subnetwork:
    """The sparse network a state stands for, in either stage."""
    if "scores" in state.learned:
        weights = with_head(fixed.weights, state.learned)
        mask = masks.prune_smallest(state.learned["scores"], fixed.pruned)
    else:
        weights, mask = state.learned["weights"], fixed.mask
    return Subnetwork(weights, mask, state.batch_stats, state.learned["prompt"], state.mapping)


def with_head(weights: PyTree, learned: dict[str, PyTree]) -> PyTree:
    """`weights` with the new head that is being learned, if there is one."""
    return {**weights, HEAD: learned["head"]} if "head" in learned else weights


def _iterate(
    run_pass: Callable[..., tuple[TrainState, Metrics]],
    task: Task,
    state: TrainState,
    fixed: Fixed,
    batches: tuple[Batch, ...],
    rng: jax.Array,
) -> tuple[TrainState, tuple[Metrics, ...]]:
    metrics = []
    for i, (one, batch) in enumerate(zip(task.passes, batches, strict=True)):
        state, seen = run_pass(task, one, state, fixed, batch, jax.random.fold_in(rng, i))
        metrics.append(seen)
    return dataclasses.replace(state, step=state.step + 1), tuple(metrics)


def _update(
    task: Task,
    one: Pass,
    state: TrainState,
    sparse: Callable[[dict[str, PyTree]], tuple[PyTree, PyTree]],
    batch: Batch,
    rng: jax.Array,
    *,
    train: bool,
) -> tuple[TrainState, Metrics]:
    """One loss, one gradient, one partitioned update."""
    images, labels = batch
    active = frozenset(state.learned) if one.prompted else frozenset(state.learned) - {"prompt"}

    def loss(moving: dict[str, PyTree]) -> tuple[jax.Array, tuple[jax.Array, PyTree]]:
        weights, mask = sparse({**state.learned, **moving})
        logits, batch_stats = forward(
            task.network,
            weights=weights,
            mask=mask,
            batch_stats=state.batch_stats,
            prompt=moving["prompt"] if one.prompted else None,
            images=images,
            mapping=state.mapping,
            train=train,
            rng=rng,
        )
        return cross_entropy(logits=logits, labels=labels), (logits, batch_stats)

    moving = {group: state.learned[group] for group in active}
    gradients, (logits, batch_stats) = jax.grad(loss, has_aux=True)(moving)
    held = {group: jax.tree.map(jnp.zeros_like, state.learned[group]) for group in state.learned.keys() - active}
    updates, opt_state = optim.joint(task.rules, active).update({**gradients, **held}, state.opt_state, state.learned)
    state = dataclasses.replace(
        state, learned=optax.apply_updates(state.learned, updates), opt_state=opt_state, batch_stats=batch_stats
    )
    return state, Metrics.of(logits=logits, labels=labels)
