"""Runs the epochs of a stage: one compiled scan if the data are on the devices, single iterations if they are streamed.

Order and augmentation follow from the key and the number of the step alone, so a resumed epoch sees the same batches.
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
from vpns_jax.training.batches import Batch, Resident, Split, crop, iterations_of, take
from vpns_jax.training.checkpoints import Checkpoints
from vpns_jax.training.metrics import Metrics
from vpns_jax.training.passes import Stage
from vpns_jax.training.state import Groups, TrainState

PyTree = Any
# The metrics of each pass, merged over iterations.
Totals = tuple[Metrics, ...]
# Runs an epoch, or the rest of one: (state, epoch, metrics so far) -> (next state, metrics of the whole epoch).
RunEpoch = Callable[[TrainState, int, Totals], tuple[TrainState, Totals]]


@dataclasses.dataclass(frozen=True)
class Within:
    """Checkpoints within an epoch, for epochs that take long.

    Attributes:
      checkpoints: the checkpoints, of which only the newest is kept.
      every: iterations between two of them.
    """

    checkpoints: Checkpoints
    every: int


def nothing(stage: Stage) -> Totals:
    """Makes the metrics of no iterations.

    Args:
      stage: the stage.

    Returns:
      Empty metrics for each pass.
    """
    return tuple(Metrics.empty() for _ in stage.passes)


def run_epoch(
    stage: Stage, state: TrainState, data: Resident, key: jax.Array, epoch: int | jax.Array
) -> tuple[TrainState, Totals]:
    """Runs one epoch on data that are on the devices.

    Args:
      stage: what an iteration does.
      state: the state before, whose arrays are donated, except frozen ones.
      data: the training split.
      key: the stage's key.
      epoch: the number of the epoch, from 0.

    Returns:
      The next state, and the metrics of each pass, merged over the epoch.
    """
    moving = dataclasses.replace(state, frozen={})
    after, totals = scan_epoch(stage, moving, state.frozen, data, key, epoch)
    return dataclasses.replace(after, frozen=state.frozen), totals


# Frozen arrays are a separate argument, because donated arrays can no longer be used elsewhere.
@functools.partial(jax.jit, static_argnames=("stage",), donate_argnames=("state",))
def scan_epoch(
    stage: Stage, state: TrainState, frozen: Groups, data: Resident, key: jax.Array, epoch: jax.Array
) -> tuple[TrainState, Totals]:
    """Runs an epoch as one compiled scan; see `run_epoch`.

    Args:
      stage: what an iteration does; static.
      state: the state before, without frozen groups; its arrays are donated.
      frozen: the frozen groups.
      data: the training split.
      key: the stage's key.
      epoch: the number of the epoch, from 0.

    Returns:
      The next state without frozen groups, and the metrics of each pass.
    """
    order_key, step_key = jax.random.split(key)
    orders = [
        # Each pass has its own shuffle.
        epoch_order(jax.random.fold_in(order_key, i), epoch, data.size, stage.batch_size)
        for i in range(len(stage.passes))
    ]

    def body(state: TrainState, indices: list[jax.Array]) -> tuple[TrainState, Totals]:
        # The key depends on the step, so that no two iterations of a stage share random numbers.
        rng = jax.random.fold_in(step_key, state.step)
        batches = tuple(
            take(data, rows, jax.random.fold_in(rng, i), augmented=pass_.preparation.augmented)
            for i, (pass_, rows) in enumerate(zip(stage.passes, indices, strict=True))
        )
        # Without this, XLA unpacks masks before the loop and keeps them as bools.
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
    """Runs one iteration on batches from the host, and merges its metrics into `total`."""
    rng = jax.random.fold_in(key, state.step)
    cropped = tuple(
        crop(batch, jax.random.fold_in(rng, i), augmented=pass_.preparation.augmented, size=size, flip=flip)
        for i, (pass_, batch) in enumerate(zip(stage.passes, batches, strict=True))
    )
    state, seen = _iterate(stage, dataclasses.replace(state, frozen=frozen), cropped, rng)
    return state, tuple(before.merge(batch) for before, batch in zip(total, seen, strict=True))


def _iterate(stage: Stage, state: TrainState, batches: tuple[Batch, ...], rng: jax.Array) -> tuple[TrainState, Totals]:
    """Runs one iteration; returns the next state without frozen groups, split over the devices like parameters."""
    state, seen = passes.iterate(stage, state, batches, jax.random.fold_in(rng, len(batches)))
    return sharding.split_parameters(dataclasses.replace(state, frozen={})), seen


@contextlib.contextmanager
def epoch_runner(
    stage: Stage, data: Split, key: jax.Array, step: int, within: Within | None, tick: Callable[[float], None]
) -> Iterator[RunEpoch]:
    """Makes the function that runs the epochs of a stage, for data on the devices or streamed.

    Args:
      stage: what an iteration does.
      data: the training split.
      key: the stage's key.
      step: the first iteration.
      within: the checkpoints within epochs of streamed data; None for none.
      tick: is called with the share of the epoch that is done.

    Yields:
      The function.
    """
    if isinstance(data, Resident):
        yield lambda state, epoch, _: run_epoch(stage, state, data, key, epoch)
        return
    order_key, step_key = jax.random.split(key)
    seed = int(jax.random.randint(order_key, (), 0, 2**31 - 1))
    done, iterations = step, iterations_of(data, stage.batch_size)

    def run(state: TrainState, epoch: int, total: Totals) -> tuple[TrainState, Totals]:
        nonlocal done
        frozen, state = state.frozen, dataclasses.replace(state, frozen={})
        while done < (epoch + 1) * iterations:
            batch = next(batches)
            state, total = _run_iteration(
                stage, state, frozen, total, batch, step_key, size=data.image_size, flip=data.flip
            )
            done += 1
            tick(done / iterations - epoch)
            if within and done % within.every == 0:
                within.checkpoints.save(done, (state, total))
        return dataclasses.replace(state, frozen=frozen), total

    augmented = tuple(pass_.preparation.augmented for pass_ in stage.passes)
    with data.train_batches(stage.batch_size, augmented, seed=seed, step=step) as batches:
        yield run
