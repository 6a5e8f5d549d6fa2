"""Trains the stages of one cell, whatever they are: with checkpoints, a row an epoch, and counts."""

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax import sparsity
from vpns_jax.errors import UserError
from vpns_jax.parallel import sharding
from vpns_jax.training.batches import Resident, Split
from vpns_jax.training.checkpoints import Checkpoints
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
class Files:
    """The open checkpoints of a stage, and those within its epochs where its data stream in."""

    checkpoints: Checkpoints
    within: Within | None


@dataclasses.dataclass(frozen=True)
class Runner:
    """Trains stages, or resumes them, on one set of data.

    Everything random follows from a stage's key and the epoch, so a run that was killed and resumed ends bit for bit
    where an unbroken one does.

    Attributes:
      train: the training split.
      val: the validation split.
      directory: of the checkpoints; each stage has a folder in it.
      fingerprint: names what was run; a checkpoint of anything else is refused.
      keys: of each stage, by the name that rows have for it.
      recorder: is given each epoch's row.
      remap: whether the label mapping is estimated anew before every epoch but the first (iterative label mapping).
      save_every: epochs between checkpoints; there is one as well where validation is better than before, and at the
        end.
      save_within: iterations between checkpoints within an epoch, of data that stream in; 0 for none.
      notes: what pruners had to say, for the report.
      optimizer_steps, forward_passes: done so far, by stage; what an earlier, interrupted run did is counted, too.
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
    def open(self, folder: str, *, keep_best: bool = False) -> Iterator[Files]:
        """The checkpoints in a folder of that name.

        Args:
          folder: in the runner's directory; made if it is not there.
          keep_best: whether the best on validation is kept beside the newest.
        """
        with contextlib.ExitStack() as stack:
            where = self.directory / folder
            checkpoints = stack.enter_context(Checkpoints(where, self.fingerprint, keep_best=keep_best))
            within = None
            if self.save_within and not isinstance(self.train, Resident):
                where = self.directory / f"{folder}-within"
                inner = Checkpoints(where, self.fingerprint, keep_best=False)
                within = Within(stack.enter_context(inner), self.save_within)
            yield Files(checkpoints, within)

    def run(
        self, name: str, stage: Stage, state: TrainState, epochs: int, files: Files | None = None, *, start: int = 0
    ) -> TrainState:
        """Runs, or resumes, a stage to its end, or one round of it.

        Args:
          name: the stage as rows have it.
          stage: what an iteration does.
          state: at the start; a checkpoint past `start`, if there is one, takes its place.
          epochs: how many the stage has once this is done, those of earlier rounds included.
          files: its checkpoints; by default those in the folder `name`.
          start: epochs of earlier rounds, whose rows, steps and draws this one goes on from.

        Returns:
          The state after the last epoch.

        Raises:
          UserError: a loss or a parameter is not finite at the end of an epoch.
        """
        if files is None:
            with self.open(name) as opened:
                return self.run(name, stage, state, epochs, opened, start=start)
        self._count(name, stage, epochs - start)
        iterations = self.train.size // stage.batch_size
        state = dataclasses.replace(state, step=state.step + start * iterations)
        # Where arrays lie decides which program runs: the same for a mask just made and one from a checkpoint.
        frozen = sharding.place(state.frozen, jax.sharding.get_mesh())
        state = dataclasses.replace(state, frozen=frozen)
        first, checkpoints = start, files.checkpoints
        if checkpoints.newest_epoch() > start:
            found = checkpoints.newest(state.saved())
            assert found is not None, "there is a newest epoch"
            first, state = found[0], state.restored(found[1])
        self.recorder.skip(name, first - start)
        if first < epochs:
            state = self._run_epochs(name, stage, state, range(first, epochs), files, start=start)
        return state

    def run_to_best(
        self, name: str, stage: Stage, state: TrainState, epochs: int
    ) -> tuple[TrainState, int, Subnetwork]:
        """Runs a stage from its start to its end.

        Returns:
          The state after the last epoch; the epoch that is best on validation, and its network.
        """
        with self.open(name, keep_best=True) as files:
            last = self.run(name, stage, state, epochs, files)
            epoch, best = files.checkpoints.best(last.saved())
        return last, epoch, stage.subnetwork(last.restored(best))

    def skip(self, name: str, stage: Stage, epochs: int) -> None:
        """Counts epochs that an earlier run did, and of which nothing is needed any more."""
        self._count(name, stage, epochs)
        self.recorder.skip(name, epochs)

    def spend(self, name: str, passes: int) -> None:
        """Counts forward and backward passes that a pruner runs itself, in the stage of that name."""
        self.forward_passes[name] += passes

    def _count(self, name: str, stage: Stage, epochs: int) -> None:
        """Every pass of training is a forward, a backward and an optimizer step."""
        count = epochs * (self.train.size // stage.batch_size) * len(stage.passes)
        self.optimizer_steps[name] += count
        self.forward_passes[name] += count

    def _run_epochs(
        self,
        name: str,
        stage: Stage,
        state: TrainState,
        epochs: range,
        files: Files,
        *,
        start: int,
    ) -> TrainState:
        """Runs epochs; after each the network is validated, prompted and plain."""
        checkpoints, within = files.checkpoints, files.within
        best, iterations = checkpoints.best_accuracy(), self.train.size // stage.batch_size
        self.recorder.start(name, epochs.start, int(state.step))
        state, total, resumed = _newest_within(within, state, nothing(stage), iterations)
        with epoch_runner(stage, self.train, self.keys[name], int(state.step), within, self.recorder.tick) as run_epoch:
            for epoch in epochs:
                began, compiled = time.perf_counter(), COMPILE_CLOCK.seconds
                # A stage begins with the mapping it is given, and an epoch that is resumed has had its own.
                if self.remap and epoch > start and not resumed:
                    state = self._remapped(stage, state)
                state, metrics = run_epoch(state, epoch, total)
                total, resumed = nothing(stage), False
                row = {"stage": name, "epoch": epoch + 1, **_row(stage, state, self.val, metrics)}
                row["compile_seconds"] = COMPILE_CLOCK.seconds - compiled
                row["seconds"] = time.perf_counter() - began - row["compile_seconds"]
                # The row first: a run killed before the checkpoint is there drops it and writes it again.
                self.recorder.epoch(row)
                check_finite(row, state)
                accuracy = row["val_plain"] if row["val_prompted"] is None else row["val_prompted"]
                improved = checkpoints.keeps_best and (best is None or accuracy > best)
                # Checkpoints within an epoch go on from its start.
                due = within is not None or (epoch + 1) % self.save_every == 0 or epoch + 1 == epochs.stop
                if improved or due:
                    checkpoints.save(epoch + 1, state.saved(), accuracy=accuracy)
                best = accuracy if improved else best
        return state

    def _remapped(self, stage: Stage, state: TrainState) -> TrainState:
        found = estimate_mapping(stage.network, stage.subnetwork(state), self.train, batch_size=stage.batch_size)
        return dataclasses.replace(state, mapping=found)


def check_finite(row: dict[str, Any], state: TrainState) -> None:
    """Raises `UserError` if an epoch's loss, or a group that it has moved, is not finite.

    Args:
      row: of the epoch.
      state: after it.
    """
    wrong = sorted(group for group, finite in jax.device_get(_finite(state.learned)).items() if not finite)
    if wrong or not jnp.isfinite(row["loss"]):
        what = f"{' and '.join(wrong)} are no longer finite" if wrong else f"the loss is {row['loss']}"
        raise UserError(
            f"stage {row['stage']}, epoch {row['epoch']}: {what}; lower the learning rate of "
            f"{' and '.join(wrong or sorted(state.learned))} in this stage, or clip gradients (clip_norm); where the "
            "model computes in float16, use bfloat16"
        )


@jax.jit
def _finite(groups: PyTree) -> dict[str, jax.Array]:
    return {
        name: jnp.all(jnp.asarray([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)] or [True]))
        for name, tree in groups.items()
    }


def _newest_within(
    within: Within | None, state: TrainState, total: Totals, iterations: int
) -> tuple[TrainState, Totals, bool]:
    """State, metrics so far, and true if that is the middle of the epoch that `state` is the start of."""
    moving = dataclasses.replace(state, frozen={})
    found = within.checkpoints.newest((moving, total)) if within else None
    # One of an epoch that has been finished since says nothing.
    if found is None or found[0] <= int(state.step):
        return state, total, False
    if found[0] > int(state.step) + iterations:
        raise UserError(
            f"the checkpoint within an epoch is of step {found[0]}, and that of its start, of step "
            f"{int(state.step)}, is too old; remove the cell's folder under checkpoints/ to run it anew"
        )
    moving, total = found[1]
    return dataclasses.replace(moving, frozen=state.frozen), total, True


def _row(stage: Stage, state: TrainState, val: Split, metrics: tuple[Metrics, ...]) -> dict[str, Any]:
    """The numbers of one epoch, fetched from the device at once."""
    network = stage.subnetwork(state)
    seen = evaluate(stage.network, network, val, batch_size=stage.batch_size)
    trained = metrics[0].compute()
    row = {
        "step": state.step,
        "loss": trained["loss"],
        "train_accuracy": trained["accuracy"],
        "density": sparsity.density(network.mask),
        **{f"val_{way}": accuracy for way, accuracy in seen.both("accuracy").items()},
    }
    return {name: None if value is None else value.item() for name, value in jax.device_get(row).items()}
