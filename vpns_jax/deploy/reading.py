"""Classifies image files with a finished network. Threads decode them ahead, in the same way as the run did."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from vpns_jax.data import printable
from vpns_jax.data.decode import UnreadableImageError, decode_image
from vpns_jax.deploy import images
from vpns_jax.deploy.classifier import BATCH_SIZE, Classifier
from vpns_jax.deploy.description import Description


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """A network's answer for one file.

    Attributes:
      path: the file.
      probabilities: float32 [t]; None if the file is unreadable.
      reason: why the file is unreadable; "" if it is readable.
    """

    path: Path
    probabilities: np.ndarray | None
    reason: str = ""


def classify_files(
    classifier: Classifier, paths: Iterable[Path], *, prompted: bool | None = None, batch_size: int = BATCH_SIZE
) -> Iterator[Answer]:
    """Classifies image files in order, and holds only a few batches in memory.

    Args:
      classifier: the network.
      paths: the files.
      prompted: whether the prompt is applied; see `Classifier.predict`.
      batch_size: images in a batch.

    Yields:
      An answer for each file, also for unreadable ones.

    Raises:
      UserError: `prompted` is True and the network has no prompt.
    """
    read = functools.partial(_read, description=classifier.description)
    for batch in images.batched(images.in_order(read, paths, ahead=3 * batch_size), batch_size):
        squares = [square for _, square in batch if isinstance(square, np.ndarray)]
        rows = iter(classifier.probabilities(squares, prompted, batch_size) if squares else ())
        for path, square in batch:
            yield Answer(path, None, square) if isinstance(square, str) else Answer(path, next(rows))


def _read(path: Path, description: Description) -> tuple[Path, np.ndarray | str]:
    """The path, and the image as the network takes it or the reason why the file is unreadable."""
    try:
        return path, images.square(decode_image(path.read_bytes(), description.decoding), description.image_size)
    except OSError as error:
        return path, str(error.strerror)
    except UnreadableImageError as error:
        return path, printable(str(error))
