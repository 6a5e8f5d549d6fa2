"""Where a run's numbers go while it runs: the progress bar, metrics.jsonl and TensorBoard, one cell at a time."""

from collections import Counter
from pathlib import Path
from typing import Any

import jax.monitoring
from tqdm import tqdm

from vpns_jax.errors import UserError
from vpns_jax.parallel import processes
from vpns_jax.training.writers import MetricLog, TensorBoard

_COMPILATION = "/jax/core/compile/"


class CompileClock:
    """Seconds this process has spent tracing and compiling, so that a report can tell them from training."""

    def __init__(self) -> None:
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith(_COMPILATION):
            self.seconds += duration_secs


class Progress:
    """One bar over all epochs of a run: where it is, how it does, how long is left."""

    def __init__(self, epochs: int) -> None:
        # Off a terminal the bar is off, and the lines of `say` remain. Of several processes the first one speaks.
        self._silent = not processes.is_primary()
        self._bar = tqdm(total=epochs, unit="epoch", disable=self._silent or None, dynamic_ncols=True, smoothing=0.1)
        self._done = 0

    def advance(self, what: str, epochs: int = 1, row: dict[str, Any] | None = None) -> None:
        """Moves on, showing a row's loss, accuracy and density."""
        self._bar.set_description(what, refresh=False)
        if row is not None:
            self._bar.set_postfix_str(_numbers(row), refresh=False)
            if self._bar.disable:
                self.say(f"{what} epoch {row['epoch']}: {_numbers(row)}")
        self._done += epochs
        self._bar.update(self._done - self._bar.n)

    def tick(self, share: float) -> None:
        """So much of the epoch under way is done, in [0, 1)."""
        self._bar.update(self._done + round(share, 2) - self._bar.n)

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        if not self._silent:
            tqdm.write(line)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


def _numbers(row: dict[str, Any]) -> str:
    accuracy = row["val_plain"] if row["val_prompted"] is None else row["val_prompted"]
    return f"loss {row['loss']:.3f} val {accuracy:.1%} density {row['density']:.1%}"


class Recorder:
    """Takes the rows of one cell's stages; of several processes, the first one writes and reads them."""

    def __init__(self, cell: str, log: MetricLog, directory: Path, progress: Progress) -> None:
        """Starts with nothing done.

        Args:
          cell: its name, which is put into each row.
          log: where all cells' rows go.
          directory: of this cell's TensorBoard events.
          progress: the bar that moves on.
        """
        self._cell, self._log, self._directory, self._progress = cell, log, directory, progress
        self._tensorboard: TensorBoard | None = None
        self._offset = 0
        self._epochs: Counter[str] = Counter()

    def start(self, stage: str, epoch: int, step: int) -> None:
        """A stage begins, or resumes: its rows past that will come again, and are dropped.

        Args:
          stage: as rows have it.
          epoch: how many epochs of it are done, those of earlier rounds and earlier runs included.
          step: how many iterations.

        Raises:
          UserError: the log has lost rows of what is done.
        """
        if not processes.is_primary():
            return
        self._log.truncate(lambda row: (row["cell"], row["stage"]) != (self._cell, stage) or row["epoch"] <= epoch)
        # Rows are in order: the last of each stage says how long that was.
        ends = {row["stage"]: row["step"] for row in self.rows() if row["stage"] != stage}
        self._offset = sum(ends.values())
        if self._tensorboard is None:
            self._tensorboard = TensorBoard(self._directory, resume_step=self._offset + step + 1)
        self._progress.advance(f"{self._cell} {stage}", 0)

    def skip(self, stage: str, epochs: int) -> None:
        """An earlier run did so many epochs of a stage: what came of them, and of stages after them, stands."""
        self._epochs[stage] += epochs
        self._progress.advance(f"{self._cell} {stage}", epochs)

    def epoch(self, row: dict[str, Any]) -> None:
        """Logs one epoch.

        Args:
          row: its numbers, and "stage", "epoch" and "step".
        """
        self._epochs[row["stage"]] += 1
        if not processes.is_primary():
            return
        self._log.append({"cell": self._cell, **row})
        assert self._tensorboard is not None, "start comes first"
        scalars = {name: row[name] for name in ("loss", "train_accuracy", "val_plain", "val_prompted", "density")}
        self._tensorboard.scalars(self._offset + row["step"], scalars)
        self._progress.advance(f"{self._cell} {row['stage']}", row=row)

    def tick(self, share: float) -> None:
        """So much of the epoch under way is done, in [0, 1)."""
        self._progress.tick(share)

    def rows(self) -> list[dict[str, Any]]:
        """This cell's rows so far.

        Raises:
          UserError: the log has lost some of them.
        """
        rows = [row for row in self._log.rows() if row["cell"] == self._cell]
        for stage, epochs in self._epochs.items():
            found = [row["epoch"] for row in rows if row["stage"] == stage]
            if found != list(range(1, epochs + 1)):
                raise UserError(
                    f"{self._log.path} has lost rows of {self._cell}: stage {stage} has {len(found)} of {epochs} "
                    f"epochs; restore it, or remove checkpoints/{self._cell} beside it to run the cell anew"
                )
        return rows

    def close(self) -> None:
        """Ends the event file."""
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None
