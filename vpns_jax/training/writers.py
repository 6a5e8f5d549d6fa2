"""What a run writes beside its checkpoints: JSON lines and TensorBoard events."""

import io
import json
import os
import sys
import time
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vpns_jax.errors import UserError
from vpns_jax.files import plain, write_whole


class MetricLog:
    """An append-only file of JSON rows, one a line, that survives a kill at any moment.

    A row counts once its newline is written: what a killed run left behind the last newline is never
    read, and is cut off before the next row goes in. Nothing is written before the first `append`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds one row and hands it to the operating system."""
        line = json.dumps(row, default=plain) + "\n"
        with self.path.open("a+b") as file:
            _cut_torn_line(file)
            file.write(line.encode())

    def rows(self) -> list[dict[str, Any]]:
        """Every whole row, oldest first; none if there is no file yet.

        Raises:
          UserError: a line before the last is not a JSON object, which no kill explains.
        """
        if not self.path.exists():
            return []
        *lines, _ = self.path.read_bytes().split(b"\n")
        return [self._parse(number, line) for number, line in enumerate(lines, start=1)]

    def truncate(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drops, atomically, the rows that `keep` refuses: those a resumed run is about to write again."""
        if self.path.exists():
            kept = [row for row in self.rows() if keep(row)]
            write_whole(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{self.path}: line {number} is not a JSON object; mend or remove that line")
        return row


class TensorBoard:
    """Scalars and images as TensorBoard events, without TensorFlow. Use it in `with`, or `close` it."""

    def __init__(self, directory: str | Path, *, purge_step: int | None = None) -> None:
        """Starts an event file.

        Args:
          directory: where TensorBoard looks for it; made if it is not there.
          purge_step: where a resumed run continues: TensorBoard forgets older events from this step on.
        """
        # With TensorFlow installed (to prepare data sets) the writer would import it, seconds of start-up and
        # a second claim on the accelerator; the presence of this module is how it is told not to.
        sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._session, self._summary = event_pb2.Event, event_pb2.SessionLog, summary_pb2.Summary
        self._writer = EventFileWriter(str(directory))
        if purge_step is not None:
            start = self._session(status=self._session.START)
            self._add(purge_step, session_log=start)

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes one number a tag; those that are None are left out."""
        self._write(step, [{"tag": tag, "simple_value": float(x)} for tag, x in values.items() if x is not None])

    def images(self, step: int, images: Mapping[str, Any]) -> None:
        """Writes one picture a tag: [h, w, 3], uint8, or float in [0, 1] (what lies outside is clipped)."""
        self._write(step, [{"tag": tag, "image": self._image(x)} for tag, x in images.items()])

    def close(self) -> None:
        """Writes out what is left and ends the file."""
        self._writer.close()

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _image(self, pixels: Any) -> Any:
        pixels = np.asarray(pixels)
        h, w, c = pixels.shape
        if c != 3:
            raise ValueError(f"an image must be [h, w, 3], got {pixels.shape}")
        if pixels.dtype != np.uint8:
            pixels = np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, format="png")
        return self._summary.Image(height=h, width=w, colorspace=3, encoded_image_string=png.getvalue())

    def _write(self, step: int, values: Iterable[Mapping[str, Any]]) -> None:
        self._add(step, summary=self._summary(value=[self._summary.Value(**value) for value in values]))

    def _add(self, step: int, **what: Any) -> None:
        self._writer.add_event(self._event(wall_time=time.time(), step=step, **what))
        # Some writes an epoch: worth having them on disk when the run is killed.
        self._writer.flush()


def _cut_torn_line(file: io.BufferedRandom) -> None:
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
