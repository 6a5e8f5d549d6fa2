"""The epochs of a stage, compiled: one scan where data lie on the devices, iteration by iteration where they stream.

Both are pure functions of their arguments: orders and augmentation come from the key and the step's number.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import lax

from vpns_jax import xla
from vpns_jax.data.order import epoch_order
from vpns_jax.parallel import sharding
from vpns_jax.training import passes
from vpns_jax.training.batches import Batch, Resident, Split, crop, take
from vpns_jax.training.checkpoints import Checkpoints
from vpns_jax.training.metrics import Metrics
from vpns_jax.training.passes import Stage
from vpns_jax.training.state import Groups, TrainState

PyTree = Any
# The metrics of each pass, summed over iterations.
Totals = tuple[Metrics, ...]
# Runs one epoch, or what is left of it: (state, epoch, metrics so far) -> the next state, the metrics over the epoch.
RunEpoch = Callable[[TrainState, int, Totals], tuple[TrainState, Totals]]


@dataclasses.dataclass(frozen=True)
class Within:
    """Checkpoints within an epoch, where epochs take long: one every so many steps, the newest alone kept."""

    checkpoints: Checkpoints
    every: int


def nothing(stage: Stage) -> Totals:
    """The metrics of no iteration."""
    return tuple(Metrics.empty() for _ in stage.passes)


def run_epoch(
    stage: Stage, state: TrainState, data: Resident, key: jax.Array, epoch: int | jax.Array
) -> tuple[TrainState, Totals]:
    """One epoch on data that lie on the devices.

    Args:
      stage: what an iteration does.
      state: where it starts; all but what is frozen in it is given away.
      data: the training split.
      key: of the stage.
      epoch: its number, from 0.

    Returns:
      The next state, and for each pass its metrics summed over the epoch.
    """
    moving = dataclasses.replace(state, frozen={})
    after, totals = scan_epoch(stage, moving, state.frozen, data, key, epoch)
    return dataclasses.replace(after, frozen=state.frozen), totals


# What is frozen comes apart, since arrays that are given away (donated) are gone for whoever else holds them.
@functools.partial(jax.jit, static_argnames=("stage",), donate_argnames=("state",))
def scan_epoch(
    stage: Stage, state: TrainState, frozen: Groups, data: Resident, key: jax.Array, epoch: jax.Array
) -> tuple[TrainState, Totals]:
    """`run_epoch` as one compiled scan; `state` without what is frozen."""
    order_key, step_key = jax.random.split(key)
    orders = [
        # Each pass shuffles on its own.
        epoch_order(jax.random.fold_in(order_key, i), epoch, data.size, stage.batch_size)
        for i in range(len(stage.passes))
    ]

    def body(state: TrainState, indices: list[jax.Array]) -> tuple[TrainState, Totals]:
        # By the step's own number, so that no two iterations of a stage share their draws.
        rng = jax.random.fold_in(step_key, state.step)
        batches = tuple(
            take(data, rows, jax.random.fold_in(rng, i), augmented=one.augmented)
            for i, (one, rows) in enumerate(zip(stage.passes, indices, strict=True))
        )
        # Or XLA unpacks masks once, ahead of the loop, and keeps them as bools.
        held, _ = xla.tied(frozen, state.step)
        return _iterate(stage, dataclasses.replace(state, frozen=held), batches, rng)

    state, metrics = lax.scan(body, state, orders)
    return state, jax.tree.map(lambda x: x.sum(), metrics)


@functools.partial(jax.jit, static_argnames=("stage", "size", "flip"), donate_argnames=("state", "total"))
def _run_iteration(
    stage: Stage,
    state: TrainState,
    frozen: Groups,
    total: Totals,
    batches: tuple[Batch, ...],
    key: jax.Array,
    *,
    size: int,
    flip: bool,
) -> tuple[TrainState, Totals]:
    """One iteration on batches from the host; `total` gathers the metrics of each pass."""
    rng = jax.random.fold_in(key, state.step)
    cropped = tuple(
        crop(batch, jax.random.fold_in(rng, i), augmented=one.augmented, size=size, flip=flip)
        for i, (one, batch) in enumerate(zip(stage.passes, batches, strict=True))
    )
    state, seen = _iterate(stage, dataclasses.replace(state, frozen=frozen), cropped, rng)
    return state, tuple(before.merge(one) for before, one in zip(total, seen, strict=True))


def _iterate(stage: Stage, state: TrainState, batches: tuple[Batch, ...], rng: jax.Array) -> tuple[TrainState, Totals]:
    """One iteration; the next state without what is frozen, laid out over the devices as parameters are."""
    state, seen = passes.iterate(stage, state, batches, jax.random.fold_in(rng, len(batches)))
    return sharding.split_parameters(dataclasses.replace(state, frozen={})), seen


@contextlib.contextmanager
def epoch_runner(
    stage: Stage, data: Split, key: jax.Array, step: int, within: Within | None, tick: Callable[[float], None]
) -> Iterator[RunEpoch]:
    """What runs the epochs of a stage from iteration `step` on, wherever its data are.

    Args:
      stage: what an iteration does.
      data: the training split.
      key: of the stage.
      step: the first iteration.
      within: where checkpoints go that are made within epochs, of data that stream in; None for none.
      tick: hears what share of an epoch is done.
    """
    if isinstance(data, Resident):
        yield lambda state, epoch, _: run_epoch(stage, state, data, key, epoch)
        return
    order_key, step_key = jax.random.split(key)
    seed = int(jax.random.randint(order_key, (), 0, 2**31 - 1))
    done, iterations = step, data.size // stage.batch_size

    def run(state: TrainState, epoch: int, total: Totals) -> tuple[TrainState, Totals]:
        nonlocal done
        frozen, state = state.frozen, dataclasses.replace(state, frozen={})
        while done < (epoch + 1) * iterations:
            batch = next(batches)
            state, total = _run_iteration(
                stage, state, frozen, total, batch, step_key, size=data.image_size, flip=data.flip
            )
            done += 1
            tick(done % iterations / iterations)
            if within and done % within.every == 0:
                within.checkpoints.save(done, (state, total))
        return dataclasses.replace(state, frozen=frozen), total

    augmented = tuple(one.augmented for one in stage.passes)
    with data.train_batches(stage.batch_size, augmented, seed=seed, step=step) as batches:
        yield run
