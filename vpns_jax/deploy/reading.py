"""A finished network on image files: decoded as the run decoded them, ahead of the network, in threads."""

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
    """What a network says of one file.

    Attributes:
      path: of the file.
      probabilities: float32 [t]; None if it is unreadable.
      reason: why it is; empty if it can be read.
    """

    path: Path
    probabilities: np.ndarray | None
    reason: str = ""


def classify_files(
    classifier: Classifier, paths: Iterable[Path], *, prompted: bool | None = None, batch_size: int = BATCH_SIZE
) -> Iterator[Answer]:
    """Classifies image files, in order; no more than a few batches are held at once.

    Args:
      classifier: the network.
      paths: of the files.
      prompted: as `Classifier.predict` has it.
      batch_size: how many images run at once.

    Yields:
      An answer for each file, an unreadable one's too.
    """
    read = functools.partial(_read, description=classifier.description)
    for batch in images.batched(images.in_order(read, paths, ahead=3 * batch_size), batch_size):
        squares = [square for _, square in batch if isinstance(square, np.ndarray)]
        rows = iter(classifier.probabilities(squares, prompted, batch_size) if squares else ())
        for path, square in batch:
            yield Answer(path, None, square) if isinstance(square, str) else Answer(path, next(rows))


def _read(path: Path, description: Description) -> tuple[Path, np.ndarray | str]:
    """The file's image as the network takes it, or why there is none."""
    try:
        return path, images.square(decode_image(path.read_bytes(), description.decoding), description.image_size)
    except OSError as error:
        return path, str(error.strerror)
    except UnreadableImageError as error:
        return path, printable(str(error))
