"""Trains any stages of one cell, with checkpoints, one row an epoch, and counts of steps and passes."""

import contextlib
import dataclasses
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vpns_jax import sparsity
from vpns_jax.errors import UserError
from vpns_jax.parallel import processes, sharding
from vpns_jax.training.batches import Resident, Split, iterations_of
from vpns_jax.training.checkpoints import Checkpoints, within_epochs
from vpns_jax.training.epochs import Totals, Within, epoch_runner, nothing
from vpns_jax.training.evaluation import estimate_mapping, evaluate
from vpns_jax.training.metrics import Metrics
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.passes import Stage
from vpns_jax.training.recorder import CompileClock, Recorder
from vpns_jax.training.state import TrainState

PyTree = Any

COMPILE_CLOCK = CompileClock()


@dataclasses.dataclass(frozen=True)
class OpenCheckpoints:
    """The open checkpoints of a stage.

    Attributes:
      checkpoints: the checkpoints at the end of epochs.
      within: the checkpoints within epochs of streamed data; None if there are none.
    """

    checkpoints: Checkpoints
    within: Within | None


@dataclasses.dataclass(frozen=True)
class Runner:
    """Trains stages, or resumes them, on one set of data.

    Everything random follows from the stage's key and the number of the step. So a run that was killed and resumed ends
    bit for bit like an uninterrupted one.

    Attributes:
      train: the training split.
      val: the validation split.
      directory: the folder of checkpoints, in which each stage has its own folder.
      fingerprint: identifies what is run; a checkpoint with another fingerprint is refused.
      keys: random keys; that of a stage has the name that the stage has in rows.
      recorder: takes the row of each epoch.
      remap: whether the label mapping is estimated again before every epoch but the first (iterative label mapping).
      save_every: epochs between checkpoints. There is also one at the end and, where the best is kept, after each epoch
        with a new best validation accuracy.
      save_within: iterations between checkpoints within an epoch of streamed data, which then also has one after every
        epoch; 0 for none.
      notes: remarks of pruners, for the report.
      optimizer_steps: optimizer steps so far, by stage, including those of an earlier, interrupted run.
      forward_passes: forward passes so far, counted in the same way.
    """

    train: Split
    val: Split
    directory: Path
    fingerprint: str
    keys: Mapping[str, jax.Array]
    recorder: Recorder
    remap: bool = False
    save_every: int = 1
    save_within: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)
    optimizer_steps: Counter[str] = dataclasses.field(default_factory=Counter)
    forward_passes: Counter[str] = dataclasses.field(default_factory=Counter)

    @contextlib.contextmanager
    def open(self, folder: str, *, keep_best: bool = False) -> Iterator[OpenCheckpoints]:
        """Opens the checkpoints of a stage.

        Args:
          folder: the name of a folder in the runner's directory, which need not exist.
          keep_best: whether the best checkpoint is kept in addition to the newest.

        Yields:
          The open checkpoints.
        """
        with contextlib.ExitStack() as stack:
            where = self.directory / folder
            checkpoints = stack.enter_context(Checkpoints(where, self.fingerprint, keep_best=keep_best))
            within = None
            if self.save_within and not isinstance(self.train, Resident):
                inner = Checkpoints(within_epochs(where), self.fingerprint, keep_best=False)
                within = Within(stack.enter_context(inner), self.save_within)
            yield OpenCheckpoints(checkpoints, within)

    def run(
        self,
        name: str,
        stage: Stage,
        state: TrainState,
        end: int,
        opened: OpenCheckpoints | None = None,
        *,
        start: int = 0,
    ) -> TrainState:
        """Runs or resumes a stage, or one round of it.

        Args:
          name: the name of the stage in rows.
          stage: what an iteration does.
          state: the first state; a checkpoint later than `start` replaces it.
          end: the epochs of the stage after this call, including earlier rounds.
          opened: the stage's checkpoints; by default those in the folder `name`.
          start: the epochs of earlier rounds, after which rows, steps and random numbers continue.

        Returns:
          The state after the last epoch.

        Raises:
          UserError: a loss or a parameter is not finite at the end of an epoch, a checkpoint is damaged or belongs to
            another run, or the disk refuses.
        """
        if opened is None:
            with self.open(name) as opened:
                return self.run(name, stage, state, end, opened, start=start)
        self._count(name, stage, end - start)
        iterations = iterations_of(self.train, stage.batch_size)
        state = dataclasses.replace(state, step=state.step + start * iterations)
        # The placement of arrays decides which program runs. Make it the same for a new mask and one from a checkpoint.
        frozen = sharding.place(state.frozen, jax.sharding.get_mesh())
        state = dataclasses.replace(state, frozen=frozen)
        first, checkpoints = start, opened.checkpoints
        if checkpoints.newest_number() > start:
            newest = checkpoints.newest(state.saved())
            assert newest is not None, "there is a newest epoch"
            first, state = newest[0], state.restored(newest[1])
        self.recorder.skip(name, first - start)
        if first < end:
            state = self._run_epochs(name, stage, state, range(first, end), opened, start=start)
        return state

    def run_to_best(
        self, name: str, stage: Stage, state: TrainState, epochs: int
    ) -> tuple[TrainState, int, Subnetwork]:
        """Runs or resumes a whole stage and selects the epoch with the best validation accuracy.

        Args:
          name: the name of the stage in rows.
          stage: what an iteration does.
          state: the first state.
          epochs: the epochs of the stage.

        Returns:
          The state after the last epoch, the number of the best epoch, and the network after the best epoch.

        Raises:
          UserError: see `run`.
        """
        with self.open(name, keep_best=True) as opened:
            last = self.run(name, stage, state, epochs, opened)
            epoch, best = opened.checkpoints.best(last.saved())
        return last, epoch, stage.subnetwork(last.restored(best))

    def skip(self, name: str, stage: Stage, epochs: int) -> None:
        """Counts epochs of an earlier run whose results are no longer needed.

        Args:
          name: the name of the stage in rows.
          stage: what an iteration does.
          epochs: the number of epochs.
        """
        self._count(name, stage, epochs)
        self.recorder.skip(name, epochs)

    def spend(self, name: str, passes: int) -> None:
        """Counts passes that a pruner runs itself; each counts as one forward pass.

        Args:
          name: the name of the stage.
          passes: the number of passes.
        """
        self.forward_passes[name] += passes

    def _count(self, name: str, stage: Stage, epochs: int) -> None:
        """Counts a forward pass and an optimizer step for every pass of training."""
        count = epochs * iterations_of(self.train, stage.batch_size) * len(stage.passes)
        self.optimizer_steps[name] += count
        self.forward_passes[name] += count

    def _run_epochs(
        self,
        name: str,
        stage: Stage,
        state: TrainState,
        epochs: range,
        opened: OpenCheckpoints,
        *,
        start: int,
    ) -> TrainState:
        """Runs epochs and validates the network after each, prompted and plain."""
        checkpoints, within = opened.checkpoints, opened.within
        best, iterations = checkpoints.best_accuracy(), iterations_of(self.train, stage.batch_size)
        self.recorder.start(name, epochs.start, int(state.step))
        state, total, resumed = _newest_within(within, state, nothing(stage), iterations)
        with epoch_runner(stage, self.train, self.keys[name], int(state.step), within, self.recorder.tick) as run_epoch:
            for epoch in epochs:
                began, compiled = time.perf_counter(), COMPILE_CLOCK.seconds
                # The first epoch uses the given mapping, and a resumed epoch already has its new one.
                if self.remap and epoch > start and not resumed:
                    state = self._remapped(stage, state)
                state, metrics = run_epoch(state, epoch, total)
                total, resumed = nothing(stage), False
                row = {"stage": name, "epoch": epoch + 1, **_row(stage, state, self.val, metrics)}
                row["compile_seconds"] = COMPILE_CLOCK.seconds - compiled
                row["seconds"] = time.perf_counter() - began - row["compile_seconds"]
                # The row comes first: a run that is killed before the checkpoint drops the row and writes it again.
                self.recorder.epoch(row)
                check_finite(row, state)
                accuracy = row["val_plain"] if row["val_prompted"] is None else row["val_prompted"]
                improved = checkpoints.keeps_best and (best is None or accuracy > best)
                # Checkpoints within an epoch build on a checkpoint of its start.
                due = within is not None or (epoch + 1) % self.save_every == 0 or epoch + 1 == epochs.stop
                if improved or due:
                    checkpoints.save(epoch + 1, state.saved(), accuracy=accuracy)
                best = accuracy if improved else best
        return state

    def _remapped(self, stage: Stage, state: TrainState) -> TrainState:
        """The state with a label mapping that is estimated on its network."""
        mapping = estimate_mapping(stage.network, stage.subnetwork(state), self.train, batch_size=stage.batch_size)
        return dataclasses.replace(state, mapping=mapping)


def check_finite(row: dict[str, Any], state: TrainState) -> None:
    """Checks that the loss of an epoch and the groups that it updates are finite.

    Args:
      row: the row of the epoch.
      state: the state after it.

    Raises:
      UserError: they are not.
    """
    finite = processes.everywhere({group: _finite(tree) for group, tree in state.learned.items()})
    wrong = sorted(group for group in state.learned if not finite[group])
    if wrong or not math.isfinite(row["loss"]):
        what = f"{' and '.join(wrong)} are no longer finite" if wrong else f"the loss is {row['loss']}"
        raise UserError(
            f"stage {row['stage']}, epoch {row['epoch']}: {what}; lower the learning rate of "
            f"{' and '.join(wrong or sorted(state.learned))} in this stage, or clip gradients (clip_norm); if the "
            "model computes in float16, use bfloat16"
        )


def _finite(tree: PyTree) -> bool:
    """Whether the parts of arrays that this process holds are finite. The host looks, so nothing is compiled."""
    shards = (shard for x in jax.tree.leaves(tree) for shard in x.addressable_shards)
    # Of copies on several devices, one is looked at.
    return all(np.isfinite(shard.data).all() for shard in shards if shard.replica_id == 0)


def _newest_within(
    within: Within | None, state: TrainState, total: Totals, iterations: int
) -> tuple[TrainState, Totals, bool]:
    """The newest state within the epoch that begins with `state`, its metrics, and True; or `state` and False."""
    moving = dataclasses.replace(state, frozen={})
    newest = within.checkpoints.newest((moving, total)) if within else None
    # A checkpoint within an epoch that is finished is not needed.
    if newest is None or newest[0] <= int(state.step):
        return state, total, False
    if newest[0] > int(state.step) + iterations:
        raise UserError(
            f"the checkpoint within an epoch is of step {newest[0]}, and that of its start, of step "
            f"{int(state.step)}, is too old; remove the cell's folder under checkpoints/ to run it again"
        )
    moving, total = newest[1]
    return dataclasses.replace(moving, frozen=state.frozen), total, True


def _row(stage: Stage, state: TrainState, val: Split, metrics: tuple[Metrics, ...]) -> dict[str, Any]:
    """The numbers of one epoch, fetched from the device at once; loss and accuracy are those of the first pass."""
    network = stage.subnetwork(state)
    seen = evaluate(stage.network, network, val, batch_size=stage.batch_size)
    trained = metrics[0].compute()
    row = {
        "step": state.step,
        "loss": trained["loss"],
        "train_accuracy": trained["accuracy"],
        "density": sparsity.density(sparsity.counted(network.mask)),
        **{f"val_{way}": accuracy for way, accuracy in seen.both("accuracy").items()},
    }
    return {name: None if value is None else value.item() for name, value in jax.device_get(row).items()}
