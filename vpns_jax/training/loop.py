"""A stage of training: epochs of compiled steps, validation after each, checkpoints, and a row for the log."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import lax

from vpns_jax import sparsity
from vpns_jax.data.order import epoch_order
from vpns_jax.errors import UserError
from vpns_jax.parallel import sharding
from vpns_jax.training import steps
from vpns_jax.training.batches import Resident, Split, crop, take
from vpns_jax.training.checkpoints import Checkpoints
from vpns_jax.training.evaluation import estimate_mapping, evaluate
from vpns_jax.training.metrics import Metrics
from vpns_jax.training.recorder import CompileClock, Recorder
from vpns_jax.training.state import Fixed, TrainState

PyTree = Any

COMPILE_CLOCK = CompileClock()
# The iteration of each stage.
STEPS = {
    "prune": steps.prune_step,
    "retrain": steps.retrain_step,
    "bilevel": steps.bilevel_step,
    "prompt": steps.prompt_step,
}


@functools.partial(jax.jit, static_argnames=("task",), donate_argnames=("state",))
def run_epoch(
    task: steps.Task, state: TrainState, fixed: Fixed, data: Resident, key: jax.Array, epoch: jax.Array
) -> tuple[TrainState, tuple[Metrics, ...]]:
    """One epoch as a compiled scan. A pure function of its arguments: order and augmentation come from the key.

    Returns:
      The next state, and for each pass of the protocol its metrics summed over the epoch.
    """
    order_key, step_key = jax.random.split(key)
    orders = [
        # Each pass shuffles on its own.
        epoch_order(jax.random.fold_in(order_key, i), epoch, data.size, task.batch_size)
        for i in range(len(task.passes))
    ]

    def body(state: TrainState, indices: list[jax.Array]) -> tuple[TrainState, tuple[Metrics, ...]]:
        # By the step's own number, so that no two iterations of a stage share their draws.
        rng = jax.random.fold_in(step_key, state.step)
        batches = tuple(
            take(data, one, rows, jax.random.fold_in(rng, i))
            for i, (one, rows) in enumerate(zip(task.passes, indices, strict=True))
        )
        # Tied to what changes: XLA would else unpack masks once, ahead of the loop, and keep them as bools.
        held, _ = lax.optimization_barrier((fixed, state.step))
        state, seen = STEPS[task.stage](task, state, held, batches, jax.random.fold_in(rng, len(batches)))
        return sharding.split_parameters(state), seen

    state, metrics = lax.scan(body, state, orders)
    return state, jax.tree.map(lambda x: x.sum(), metrics)


@functools.partial(jax.jit, static_argnames=("task", "size", "flip"), donate_argnames=("state", "total"))
def _run_iteration(
    task: steps.Task,
    state: TrainState,
    fixed: Fixed,
    total: tuple[Metrics, ...],
    batches: tuple[steps.Batch, ...],
    key: jax.Array,
    *,
    size: int,
    flip: bool,
) -> tuple[TrainState, tuple[Metrics, ...]]:
    """One iteration on batches from the host; `total` gathers the metrics of each pass."""
    rng = jax.random.fold_in(key, state.step)
    cropped = tuple(
        crop(batch, one, jax.random.fold_in(rng, i), size=size, flip=flip)
        for i, (one, batch) in enumerate(zip(task.passes, batches, strict=True))
    )
    state, seen = STEPS[task.stage](task, state, fixed, cropped, jax.random.fold_in(rng, len(cropped)))
    merged = tuple(sum_.merge(one) for sum_, one in zip(total, seen, strict=True))
    return sharding.split_parameters(state), merged


@dataclasses.dataclass(frozen=True)
class Within:
    """Checkpoints within an epoch, where epochs take long: one every so many steps, the newest alone kept."""

    checkpoints: Checkpoints
    every: int


Totals = tuple[Metrics, ...]
# Runs one epoch, or what is left of it: (state, fixed, epoch, metrics so far) -> the next state, and the metrics of
# each pass summed over the epoch.
EpochRunner = Callable[[TrainState, Fixed, int, Totals], tuple[TrainState, Totals]]


@contextlib.contextmanager
def epoch_runner(
    task: steps.Task, data: Split, key: jax.Array, step: int, within: Within | None, tick: Callable[[float], None]
) -> Iterator[EpochRunner]:
    """What runs the epochs of a stage from iteration `step` on, whether its data are on the device or stream in.

    `tick` hears what share of an epoch is done.
    """
    if isinstance(data, Resident):
        yield lambda state, fixed, epoch, _: run_epoch(task, state, fixed, data, key, epoch)
        return
    order_key, step_key = jax.random.split(key)
    seed = int(jax.random.randint(order_key, (), 0, 2**31 - 1))
    done, iterations = step, data.size // task.batch_size

    def run(state: TrainState, fixed: Fixed, epoch: int, total: Totals) -> tuple[TrainState, Totals]:
        nonlocal done
        while done < (epoch + 1) * iterations:
            state, total = _run_iteration(
                task, state, fixed, total, next(batches), step_key, size=data.image_size, flip=data.flip
            )
            done += 1
            tick(done % iterations / iterations)
            if within and done % within.every == 0:
                within.checkpoints.save(done, (state, total))
        return state, total

    with data.train_batches(task.batch_size, task.passes, seed=seed, step=step) as batches:
        yield run


def run_stage(
    task: steps.Task,
    state: TrainState,
    fixed: Fixed,
    train: Split,
    val: Split,
    *,
    epochs: int,
    key: jax.Array,
    remap: bool,
    checkpoints: Checkpoints,
    save_every: int,
    within: Within | None,
    recorder: Recorder,
    name: str | None = None,
    start: int = 0,
) -> tuple[TrainState, Fixed]:
    """Runs, or resumes, one stage to its end, or one round of it.

    After every epoch the network is validated, prompted and plain; a checkpoint is written every `save_every`
    epochs, whenever validation is better than before, and at the end. Everything random follows from `key` and
    the epoch, so a run that was killed and resumed ends bit for bit where an unbroken one does.

    Args:
      state: at the start of the stage; a checkpoint past `start`, if there is one, takes its place.
      epochs: how many the stage has once this is done, those of earlier rounds included.
      remap: re-estimate the label mapping before every epoch but the first (iterative label mapping).
      within: where checkpoints go that are made within epochs, of data that stream in; None for none.
      recorder: is given each epoch's row.
      name: the stage as rows have it; by default that of its steps.
      start: epochs of earlier rounds, whose rows, steps and draws this one goes on from.

    Returns:
      The state after the last epoch, and what was held fixed.
    """
    name = name or task.stage
    state = dataclasses.replace(state, step=state.step + start * (train.size // task.batch_size))
    saved = checkpoints.newest((state, fixed.bits)) if checkpoints.newest_epoch() > start else None
    first, (state, bits) = saved if saved else (start, (state, fixed.bits))
    # Where they lie decides which program runs: the same for a mask that was just made and one from a checkpoint.
    fixed = sharding.place(dataclasses.replace(fixed, bits=bits), jax.sharding.get_mesh())
    recorder.skip(name, first - start)
    if first == epochs:
        return state, fixed
    best = checkpoints.best_accuracy()
    recorder.start(name, first, int(state.step))
    state, total, resumed = _newest_within(within, state, _nothing(task), train.size // task.batch_size)
    with epoch_runner(task, train, key, int(state.step), within, recorder.tick) as run:
        for epoch in range(first, epochs):
            began, compiled = time.perf_counter(), COMPILE_CLOCK.seconds
            # A stage begins with the mapping it is given, and an epoch that is resumed has had its own.
            if remap and epoch > start and not resumed:
                mapping = estimate_mapping(
                    task.network, steps.subnetwork(state, fixed), train, batch_size=task.batch_size
                )
                state = dataclasses.replace(state, mapping=mapping)
            state, metrics = run(state, fixed, epoch, total)
            total, resumed = _nothing(task), False
            row = {"stage": name, "epoch": epoch + 1, **_row(task, state, fixed, val, metrics)}
            row["compile_seconds"] = COMPILE_CLOCK.seconds - compiled
            row["seconds"] = time.perf_counter() - began - row["compile_seconds"]
            # The row first: a run killed before the checkpoint is there drops it and writes it again.
            recorder.epoch(row)
            accuracy = row["val_prompted"] if row["val_prompted"] is not None else row["val_plain"]
            improved = checkpoints.keeps_best and (best is None or accuracy > best)
            # Checkpoints within an epoch go on from its start.
            due = within is not None or (epoch + 1) % save_every == 0 or epoch + 1 == epochs
            if improved or due:
                checkpoints.save(epoch + 1, (state, fixed.bits), accuracy=accuracy)
            best = accuracy if improved else best
    return state, fixed


def _newest_within(
    within: Within | None, state: TrainState, total: Totals, iterations: int
) -> tuple[TrainState, Totals, bool]:
    """State, metrics so far, and true if that is the middle of the epoch that `state` is the start of."""
    found = within.checkpoints.newest((state, total)) if within else None
    # One of an epoch that has been finished since says nothing.
    if found is None or found[0] <= int(state.step):
        return state, total, False
    if found[0] > int(state.step) + iterations:
        raise UserError(
            f"the checkpoint within an epoch is of step {found[0]}, and that of its start, of step "
            f"{int(state.step)}, is too old; remove the cell's folder under checkpoints/ to run it anew"
        )
    return *found[1], True


def _nothing(task: steps.Task) -> Totals:
    return tuple(Metrics.zero() for _ in task.passes)


def _row(task: steps.Task, state: TrainState, fixed: Fixed, val: Split, metrics: tuple[Metrics, ...]) -> dict[str, Any]:
    """The numbers of one epoch, fetched from the device at once."""
    network = steps.subnetwork(state, fixed)
    seen = evaluate(task.network, network, val, batch_size=task.batch_size)
    row = {
        "step": state.step,
        "loss": metrics[0].loss,
        "train_accuracy": metrics[0].accuracy,
        "density": sparsity.density(network.mask),
        **{f"val_{way}": accuracy for way, accuracy in seen.accuracies().items()},
    }
    return {name: None if value is None else value.item() for name, value in jax.device_get(row).items()}
