"""Writers of metrics: JSON lines and TensorBoard events."""

import io
import json
import os
import sys
import time
import types
import weakref
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vpns_jax.errors import UserError
from vpns_jax.files import plain, write_whole
from vpns_jax.storage import refused, storage_errors


class MetricLog:
    """An append-only file of JSON rows, one on each line, that survives a kill at any moment.

    A row counts only with its newline. Text after the last newline, which a killed run leaves behind, is never read,
    and is cut off before the next row is added. Nothing is written before the first `append`. The last key of each row,
    "crc32", is a checksum of the text before it, so that an edited row is noticed.

    Attributes:
      path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        """Names the file, which need not exist.

        Args:
          path: the file.
        """
        self.path = Path(path)

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds one row and passes it to the operating system.

        Args:
          row: values that `files.plain` accepts, without a key "crc32".

        Raises:
          UserError: the disk cannot be written.
        """
        line = _sealed(json.dumps(plain(row), allow_nan=False).encode())
        try:
            with self.path.open("a+b") as file:
                _cut_torn_line(file)
                file.write(line + b"\n")
        except OSError as error:
            raise refused(self.path, error) from error

    def rows(self) -> list[dict[str, Any]]:
        """Reads all complete rows.

        Returns:
          The rows, oldest first; none if there is no file yet.

        Raises:
          UserError: a complete line is damaged or was edited, or the file cannot be read.
        """
        return [row for _, row in self._lines()]

    def truncate(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drops rows that a resumed run will write again, atomically.

        Args:
          keep: says of a row whether it stays.

        Raises:
          UserError: a line is damaged, or the disk cannot be read or written.
        """
        if self.path.exists():
            write_whole(self.path, b"".join(line + b"\n" for line, row in self._lines() if keep(row)))

    def _lines(self) -> list[tuple[bytes, dict[str, Any]]]:
        """Each complete line and its row."""
        try:
            *lines, _ = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise refused(self.path, error) from error
        return [(line, self._parse(number, line)) for number, line in enumerate(lines, start=1)]

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        content, separator, _ = line.rpartition(b', "crc32"')
        try:
            row = json.loads(content + b"}")
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not separator or line != _sealed(content + b"}"):
            raise UserError(
                f"{self.path}: line {number} is damaged or was edited: it does not match its checksum; restore it, or "
                "remove that line and the folder of its cell under checkpoints/ to run the cell again"
            )
        return row


class TensorBoard:
    """Writes scalars as TensorBoard events, without TensorFlow. Use it in `with`, or `close` it."""

    def __init__(self, directory: str | Path, *, resume_step: int = 0) -> None:
        """Starts an event file.

        Args:
          directory: the folder of events, which is made if it does not exist.
          resume_step: the step from which a resumed run continues. Existing events from this step on are cut off;
            otherwise TensorBoard would have to purge them, with a message.

        Raises:
          UserError: the disk cannot be written.
        """
        # If TensorFlow is installed (to prepare data sets), the writer would import it. That takes seconds and claims
        # the accelerator a second time. The presence of this module prevents it.
        sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._directory = Path(directory)
        with storage_errors(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            for older in self._directory.glob("*tfevents*"):
                _cut_events(older, resume_step, self._event)
            name = f"events.out.tfevents.{time.time_ns()}.{os.getpid()}.vpns_jax"
            file = (self._directory / name).open("xb")
        self._writer = RecordWriter(file)
        # In case a run ends with an error and does not close the writer.
        weakref.finalize(self, file.close)
        self._add(0, file_version="brain.Event:2")
        # For a running TensorBoard that has already read the events that are cut off.
        self._add(resume_step, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes scalars.

        Args:
          step: the step.
          values: a number for each tag; None is left out.

        Raises:
          UserError: the disk cannot be written.
        """
        known = [self._summary.Value(tag=tag, simple_value=float(x)) for tag, x in values.items() if x is not None]
        self._add(step, summary=self._summary(value=known))

    def close(self) -> None:
        """Writes the remaining events and closes the file."""
        self._writer.close()

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _add(self, step: int, **what: Any) -> None:
        with storage_errors(self._directory):
            self._writer.write(self._event(wall_time=time.time(), step=step, **what).SerializeToString())
            # There are few writes an epoch, so each is flushed, in case the run is killed.
            self._writer.flush()


def _cut_events(path: Path, step: int, event: Any) -> None:
    """Cuts an event file before the first event of `step` or later, or the first incomplete or damaged event.

    A record is the length (8 bytes), its checksum (4 bytes), the event, and its checksum (4 bytes).
    """
    with path.open("r+b") as file:
        end = 0
        while len(head := file.read(12)) == 12:
            length = int.from_bytes(head[:8], "little")
            if length > os.fstat(file.fileno()).st_size - file.tell() - 4:
                break
            try:
                record = event.FromString(file.read(length))
            except Exception:  # Protocol buffers raise several errors; TensorBoard would stop here, too.
                break
            if record.HasField("summary") and record.step >= step:
                break
            end = file.seek(4, os.SEEK_CUR)
        file.truncate(end)


def _sealed(row: bytes) -> bytes:
    """A row's JSON with its checksum in it."""
    return row[:-1] + f', "crc32": "{zlib.crc32(row):08x}"}}'.encode()


def _cut_torn_line(file: io.BufferedRandom) -> None:
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
