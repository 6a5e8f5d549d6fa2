"""One iteration of each stage, and evaluation: pure functions, to be jitted (`loop.py` scans them).

An iteration is a sequence of passes, which is all that tells the protocols apart. The paper's is one prompted,
augmented batch. The released code's ("reference") is a prompted, un-augmented batch A and a plain, augmented batch
B, drawn from two independent shuffles; B moves everything but the prompt.

Stages: "prune" learns scores on frozen weights, "retrain" weights under a fixed mask, "bilevel" both in turn, and
"prompt" nothing but the prompt. The prompt is learned in all of them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vpns_jax import sparsity
from vpns_jax.models import HEAD
from vpns_jax.sparsity import masks
from vpns_jax.training import optim
from vpns_jax.training.by_itself import by_itself
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


def passes(protocol: str, *, prompted: bool) -> tuple[Pass, ...]:
    """The passes of an iteration; without a prompt the released code's come down to HYDRA's: one, plain, augmented."""
    plain = tuple(one for one in PROTOCOLS[protocol] if not one.prompted)
    return plain if plain and not prompted else PROTOCOLS[protocol]


@dataclasses.dataclass(frozen=True)
class Task:
    """The static half of a stage: the network, its protocol and its optimizers. Hashable.

    Attributes:
      stage: "prune", "retrain", "bilevel" or "prompt".
      batch_norm: one of `BATCH_NORMS`: every pass uses and moves batch statistics, only the prompted ones do, or
        none does and the running statistics stand.
      rules: (group, rule) for each group of `TrainState.learned`.
      gamma: the penalty of stage bilevel's lower level.
    """

    stage: str
    network: Network
    protocol: str
    batch_norm: str
    batch_size: int
    rules: tuple[tuple[str, optim.Rule], ...]
    gamma: float = 1.0

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The passes of an iteration; those of stage bilevel's lower level, then those of its upper one."""
        found = passes(self.protocol, prompted=self.network.prompted)
        if self.stage == "bilevel":
            return found + found
        return tuple(one for one in found if one.prompted) if self.stage == "prompt" else found


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
    return _iterate((prune_pass,) * len(task.passes), task, state, fixed, batches, rng)


def retrain_step(
    task: Task, state: TrainState, fixed: Fixed, batches: tuple[Batch, ...], rng: jax.Array
) -> tuple[TrainState, tuple[Metrics, ...]]:
    """Stage 2: min over weights and prompt under the fixed mask (VPNs, eq. 3), one iteration; see `prune_step`."""
    return _iterate((retrain_pass,) * len(task.passes), task, state, fixed, batches, rng)


def bilevel_step(
    task: Task, state: TrainState, fixed: Fixed, batches: tuple[Batch, ...], rng: jax.Array
) -> tuple[TrainState, tuple[Metrics, ...]]:
    """BiP: a step of the weights under the mask, then one of the scores (arXiv 2210.04092); see `prune_step`.

    Each level has batches of its own.
    """
    half = len(task.passes) // 2
    return _iterate((lower_pass,) * half + (upper_pass,) * half, task, state, fixed, batches, rng)


def prompt_step(
    task: Task, state: TrainState, fixed: Fixed, batches: tuple[Batch, ...], rng: jax.Array
) -> tuple[TrainState, tuple[Metrics, ...]]:
    """A prompt alone, fitted on a finished subnetwork (VPNs, section 3's post-pruning prompt); see `prune_step`."""
    return _iterate((prompt_pass,) * len(task.passes), task, state, fixed, batches, rng)


def prune_pass(
    task: Task, one: Pass, state: TrainState, fixed: Fixed, batch: Batch, rng: jax.Array
) -> tuple[TrainState, Metrics]:
    """One pass of stage 1: threshold the scores, run, and update what the pass moves."""
    keep = fixed.keep(state.learned["scores"])

    def sparse(learned: dict[str, PyTree]) -> tuple[PyTree, PyTree]:
        return with_head(fixed.weights, learned), masks.attach_gradient(learned["scores"], keep)

    return _update(task, one, state, _moving(one, state), sparse, batch, rng, train=_on_batch(task, one))


def retrain_pass(
    task: Task, one: Pass, state: TrainState, fixed: Fixed, batch: Batch, rng: jax.Array
) -> tuple[TrainState, Metrics]:
    """One pass of stage 2: run under the fixed mask, and update what the pass moves."""

    def sparse(learned: dict[str, PyTree]) -> tuple[PyTree, PyTree]:
        return learned["weights"], fixed.mask

    return _update(task, one, state, _moving(one, state), sparse, batch, rng, train=True)


def lower_pass(
    task: Task, one: Pass, state: TrainState, fixed: Fixed, batch: Batch, rng: jax.Array
) -> tuple[TrainState, Metrics]:
    """One pass of stage bilevel's lower level: the weights move, mask and prompt stay."""
    keep = fixed.keep(state.learned["scores"])

    def sparse(learned: dict[str, PyTree]) -> tuple[PyTree, PyTree]:
        return learned["weights"], keep

    return _update(task, one, state, frozenset({"weights"}), sparse, batch, rng, train=True)


def upper_pass(
    task: Task, one: Pass, state: TrainState, fixed: Fixed, batch: Batch, rng: jax.Array
) -> tuple[TrainState, Metrics]:
    """One pass of stage bilevel's upper level: scores and prompt move, the weights stay.

    The mask's gradient is `sparsity.bilevel_gradient`, and goes straight through to the scores. The prompt gets the
    plain gradient: how the lower level's solution depends on the prompt is left out.
    """
    scores, weights = state.learned["scores"], state.learned["weights"]
    keep = fixed.keep(scores)
    kernels = sparsity.subtree(weights, keep)

    def sparse(learned: dict[str, PyTree]) -> tuple[PyTree, PyTree]:
        # The loss is differentiated in z = m * w, which takes the scores' place.
        return sparsity.overlay(weights, learned["scores"]), {}

    def to_scores(gradients: dict[str, PyTree]) -> dict[str, PyTree]:
        by_mask = sparsity.bilevel_gradient(kernels, keep, gradients["scores"], task.gamma)
        return {**gradients, "scores": jax.tree.map(lambda s, g: jnp.sign(s) * g, scores, by_mask)}

    moving = _moving(one, state) - {"weights"}
    at = dataclasses.replace(state, learned={**state.learned, "scores": masks.apply(kernels, keep)})
    gradients, seen, batch_stats = _gradients(task, one, at, moving, sparse, batch, rng, train=_on_batch(task, one))
    return _apply(task, state, to_scores(gradients), batch_stats), seen


def prompt_pass(
    task: Task, one: Pass, state: TrainState, fixed: Fixed, batch: Batch, rng: jax.Array
) -> tuple[TrainState, Metrics]:
    """One pass of stage prompt: the network is run as it will be used, on its running statistics."""

    def sparse(learned: dict[str, PyTree]) -> tuple[PyTree, PyTree]:
        del learned
        return fixed.weights, fixed.mask

    return _update(task, one, state, _moving(one, state), sparse, batch, rng, train=False)


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
    """The sparse network a state stands for, in any stage."""
    learned = state.learned
    weights = learned["weights"] if "weights" in learned else with_head(fixed.weights, learned)
    mask = fixed.keep(learned["scores"]) if "scores" in learned else fixed.mask
    return Subnetwork(weights, mask, state.batch_stats, learned["prompt"], state.mapping)


def with_head(weights: PyTree, learned: dict[str, PyTree]) -> PyTree:
    """`weights` with the new head that is being learned, if there is one."""
    return {**weights, HEAD: learned["head"]} if "head" in learned else weights


# A pass of a stage: (task, pass, state, fixed, batch, rng) -> the next state, and metrics.
RunPass = Callable[[Task, Pass, TrainState, Fixed, Batch, jax.Array], tuple[TrainState, Metrics]]


def _iterate(
    run_passes: tuple[RunPass, ...],
    task: Task,
    state: TrainState,
    fixed: Fixed,
    batches: tuple[Batch, ...],
    rng: jax.Array,
) -> tuple[TrainState, tuple[Metrics, ...]]:
    def run(i: int, state: TrainState) -> tuple[TrainState, Metrics]:
        return run_passes[i](task, task.passes[i], state, fixed, batches[i], jax.random.fold_in(rng, i))

    only, metrics = len(run_passes) == 1, []
    for i in range(len(run_passes)):
        state, seen = run(i, state) if only else by_itself(functools.partial(run, i), state)
        metrics.append(seen)
    return dataclasses.replace(state, step=state.step + 1), tuple(metrics)


def _moving(one: Pass, state: TrainState) -> frozenset[str]:
    """The groups that a pass moves: all, but the prompt in prompted passes only."""
    return frozenset(state.learned) if one.prompted else frozenset(state.learned) - {"prompt"}


def _on_batch(task: Task, one: Pass) -> bool:
    """Whether a pass that learns scores runs on batch statistics, and moves the running ones."""
    return task.batch_norm == "update" or (task.batch_norm == "prompted" and one.prompted)


def _update(
    task: Task,
    one: Pass,
    state: TrainState,
    moving: frozenset[str],
    sparse: Callable[[dict[str, PyTree]], tuple[PyTree, PyTree]],
    batch: Batch,
    rng: jax.Array,
    *,
    train: bool,
) -> tuple[TrainState, Metrics]:
    """One loss, one gradient, one partitioned update of the groups `moving`."""
    gradients, seen, batch_stats = _gradients(task, one, state, moving, sparse, batch, rng, train=train)
    return _apply(task, state, gradients, batch_stats), seen


def _gradients(
    task: Task,
    one: Pass,
    state: TrainState,
    moving: frozenset[str],
    sparse: Callable[[dict[str, PyTree]], tuple[PyTree, PyTree]],
    batch: Batch,
    rng: jax.Array,
    *,
    train: bool,
) -> tuple[dict[str, PyTree], Metrics, PyTree]:
    """The loss's gradient in the groups `moving`, its metrics, and the batch statistics after the pass."""
    images, labels = batch

    def loss(groups: dict[str, PyTree]) -> tuple[jax.Array, tuple[jax.Array, PyTree]]:
        learned = {**state.learned, **groups}
        weights, mask = sparse(learned)
        logits, batch_stats = forward(
            task.network,
            weights=weights,
            mask=mask,
            batch_stats=state.batch_stats,
            prompt=learned["prompt"] if one.prompted else None,
            images=images,
            mapping=state.mapping,
            train=train,
            rng=rng,
        )
        return cross_entropy(logits=logits, labels=labels), (logits, batch_stats)

    groups = {group: state.learned[group] for group in moving}
    gradients, (logits, batch_stats) = jax.grad(loss, has_aux=True)(groups)
    return gradients, Metrics.of(logits=logits, labels=labels), batch_stats


def _apply(task: Task, state: TrainState, gradients: dict[str, PyTree], batch_stats: PyTree) -> TrainState:
    """One update of the groups that have gradients; the others, and their optimizers, stay."""
    moving = frozenset(gradients)
    held = {group: jax.tree.map(jnp.zeros_like, state.learned[group]) for group in state.learned.keys() - moving}
    updates, opt_state = optim.joint(task.rules, moving).update({**gradients, **held}, state.opt_state, state.learned)
    return dataclasses.replace(
        state, learned=optax.apply_updates(state.learned, updates), opt_state=opt_state, batch_stats=batch_stats
    )
