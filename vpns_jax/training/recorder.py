"""Reports the numbers of a run while it runs: progress bar, metrics.jsonl and TensorBoard, one cell at a time."""

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
    """Measures the seconds this process has spent tracing and compiling, so that they do not count as training.

    Attributes:
      seconds: the seconds so far.
    """

    def __init__(self) -> None:
        """Starts at zero."""
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith(_COMPILATION):
            self.seconds += duration_secs


class Progress:
    """One progress bar over all epochs of a run, with its latest numbers and the remaining time."""

    def __init__(self, epochs: int) -> None:
        """Starts the bar.

        Args:
          epochs: the epochs of the whole run.
        """
        # Without a terminal there is no bar, only the lines of `say`. If there are several processes, the first prints.
        self._silent = not processes.is_primary()
        self._bar = tqdm(total=epochs, unit="epoch", disable=self._silent or None, dynamic_ncols=True, smoothing=0.1)
        self._done = 0

    def advance(self, what: str, epochs: int = 1, row: dict[str, Any] | None = None) -> None:
        """Advances the bar.

        Args:
          what: the cell and stage that are running.
          epochs: the number of epochs that are finished.
          row: the row whose loss, accuracy and density are shown; None to keep what is shown.
        """
        self._bar.set_description(what, refresh=False)
        if row is not None:
            self._bar.set_postfix_str(_numbers(row), refresh=False)
            if self._bar.disable:
                self.say(f"{what} epoch {row['epoch']}: {_numbers(row)}")
        self._done += epochs
        self._bar.update(self._done - self._bar.n)

    def tick(self, share: float) -> None:
        """Shows progress within an epoch.

        Args:
          share: the share of the epoch that is done, in (0, 1].
        """
        self._bar.update(self._done + round(share, 2) - self._bar.n)

    def say(self, line: str) -> None:
        """Prints a line above the bar.

        Args:
          line: the text.
        """
        if not self._silent:
            tqdm.write(line)

    def close(self) -> None:
        """Closes the bar."""
        self._bar.close()


def _numbers(row: dict[str, Any]) -> str:
    accuracy = row["val_plain"] if row["val_prompted"] is None else row["val_prompted"]
    return f"loss {row['loss']:.3f} val {accuracy:.1%} density {row['density']:.1%}"


class Recorder:
    """Records the rows of one cell's stages. If there are several processes, the first writes and reads them."""

    def __init__(self, cell: str, log: MetricLog, directory: Path, progress: Progress) -> None:
        """Makes a recorder; nothing is written yet.

        Args:
          cell: the cell's name, which is added to each row.
          log: the file of all cells' rows.
          directory: the folder of this cell's TensorBoard events.
          progress: the progress bar.
        """
        self._cell, self._log, self._directory, self._progress = cell, log, directory, progress
        self._tensorboard: TensorBoard | None = None
        self._offset = 0
        self._epochs: Counter[str] = Counter()

    def start(self, stage: str, epoch: int, step: int) -> None:
        """Begins or resumes a stage; drops its later rows, which will be written again.

        Args:
          stage: the name of the stage in rows.
          epoch: the epochs of it that are done, including earlier rounds and earlier runs.
          step: the iterations of it that are done.

        Raises:
          UserError: the log has lost rows of finished epochs.
        """
        if not processes.is_primary():
            return
        self._log.truncate(lambda row: (row["cell"], row["stage"]) != (self._cell, stage) or row["epoch"] <= epoch)
        # The last row of each stage has its number of steps.
        ends = {row["stage"]: row["step"] for row in self.rows() if row["stage"] in {*self._epochs} - {stage}}
        self._offset = sum(ends.values())
        if self._tensorboard is None:
            self._tensorboard = TensorBoard(self._directory, resume_step=self._offset + step + 1)
        self._progress.advance(f"{self._cell} {stage}", 0)

    def skip(self, stage: str, epochs: int) -> None:
        """Counts epochs that an earlier run did; their rows, and those of later stages, stay.

        Args:
          stage: the name of the stage in rows.
          epochs: the number of epochs.
        """
        self._epochs[stage] += epochs
        self._progress.advance(f"{self._cell} {stage}", epochs)

    def epoch(self, row: dict[str, Any]) -> None:
        """Records one epoch.

        Args:
          row: the numbers of the epoch, with "stage", "epoch" and "step".
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
        """Shows progress within an epoch.

        Args:
          share: the share of the epoch that is done, in (0, 1].
        """
        self._progress.tick(share)

    def rows(self) -> list[dict[str, Any]]:
        """Reads this cell's rows.

        Returns:
          The rows so far, in the order in which this run began the stages. (In the log, those of a stage that is run
          again are last.)

        Raises:
          UserError: the log has lost some of them.
        """
        rows = [row for row in self._log.rows() if row["cell"] == self._cell]
        for stage, epochs in self._epochs.items():
            logged = [row["epoch"] for row in rows if row["stage"] == stage]
            if logged != list(range(1, epochs + 1)):
                raise UserError(
                    f"{self._log.path} has lost rows of {self._cell}: stage {stage} has {len(logged)} of {epochs} "
                    f"epochs; restore it, or remove checkpoints/{self._cell} beside it to run the cell again"
                )
        order = {stage: place for place, stage in enumerate(self._epochs)}
        return sorted(rows, key=lambda row: order.get(row["stage"], len(order)))

    def close(self) -> None:
        """Closes the event file."""
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None
