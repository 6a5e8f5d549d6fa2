"""Which images make up each batch of a stream. It is arithmetic, so a batch can be computed without earlier ones."""

import dataclasses
import functools

import numpy as np

from vpns_jax.data.text import printable
from vpns_jax.errors import UserError, shorten


def check_batch(batch_size: int, images: int, *, key: str = "batch_size", name: str = "") -> None:
    """Checks that a training split has a batch of images.

    Args:
      batch_size: images in a batch.
      images: images in the split.
      key: the config's key, for the error.
      name: the data set's name, for the error; "" to name none.

    Raises:
      UserError: a batch would be empty, or larger than the split.
    """
    if not 1 <= batch_size <= images:
        whose = f" of {shorten(printable(name), 80)}" if name else ""
        raise UserError(f"{key} is {batch_size}; a training split of {images} images{whose} allows 1 to {images}")


def padded(place: np.ndarray, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Turns places in a split into images; places behind its end become the last image, with weight zero.

    Args:
      place: places from 0 on, integers of any shape.
      images: images in the split.

    Returns:
      Indices of the same shape and dtype, and weights of that shape, float32, 0 for padding.
    """
    return np.minimum(place, place.dtype.type(images - 1)), (place < images).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class TrainPlan:
    """Endless batches. Each epoch is a new random permutation, whose remainder is left out.

    Attributes:
      images: n, the number of images in the split.
      batch_size: b, over all processes.
      shuffles: the number of independent permutations that are used side by side.
      seed: the seed of all permutations.
      process: the number of this process, which gets its share of each batch.
      processes: the number of processes. The images of a batch do not depend on it.
    """

    images: int
    batch_size: int
    shuffles: int
    seed: int
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        check_batch(self.batch_size, self.images)
        _check_share(self.batch_size, self.process, self.processes)

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch."""
        return self.images // self.batch_size

    def indices(self, step: int) -> tuple[np.ndarray, ...]:
        """This process's images of batch `step`: int64 `[b / processes]` for each shuffle."""
        epoch, position = divmod(step, self.steps_per_epoch)
        batch = slice(position * self.batch_size, (position + 1) * self.batch_size)
        return tuple(
            _share(_permutation(self.images, self.seed, shuffle, epoch)[batch], self.process, self.processes)
            for shuffle in range(self.shuffles)
        )


@dataclasses.dataclass(frozen=True)
class EvalPlan:
    """All images once, in order; the last batch is padded with images of weight zero. See `TrainPlan`."""

    images: int
    batch_size: int
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size}; it must be at least 1")
        _check_share(self.batch_size, self.process, self.processes)

    @property
    def steps(self) -> int:
        """The number of batches, the same for every process."""
        return -(-self.images // self.batch_size)

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """This process's images of batch `step`, int64 `[b / processes]`, and their weights, float32, 0 for padding."""
        place = _share(np.arange(step * self.batch_size, (step + 1) * self.batch_size), self.process, self.processes)
        return padded(place, self.images)


def _check_share(batch_size: int, process: int, processes: int) -> None:
    if batch_size % processes:
        raise UserError(f"batch_size is {batch_size}; {processes} processes allow multiples of {processes}")
    if not 0 <= process < processes:
        raise ValueError(f"process {process} of {processes}")


def _share(batch: np.ndarray, process: int, processes: int) -> np.ndarray:
    share = len(batch) // processes
    return batch[process * share : (process + 1) * share]


# Cached, because neighboring batches are made at the same time and need the same few permutations.
@functools.lru_cache(maxsize=8)
def _permutation(n: int, seed: int, shuffle: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, shuffle, epoch]).permutation(n)
