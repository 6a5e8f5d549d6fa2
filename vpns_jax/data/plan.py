"""Which images of a stream make up which batch: arithmetic alone, so any batch can be named without those before it."""

import dataclasses
import functools

import numpy as np

from vpns_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TrainPlan:
    """Endless batches, each epoch a fresh permutation whose remainder is left out.

    Attributes:
      images: n, size of the split.
      batch_size: b, over all processes.
      shuffles: how many permutations run side by side, each independent of the others.
      seed: of all permutations.
      process, processes: which share of each batch is wanted. What is in a batch does not depend on how many share it.
    """

    images: int
    batch_size: int
    shuffles: int
    seed: int
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.images:
            raise UserError(
                f"batch_size is {self.batch_size}; a training split of {self.images} images allows 1 to {self.images}"
            )
        _check_share(self.batch_size, self.process, self.processes)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.images // self.batch_size

    def indices(self, step: int) -> tuple[np.ndarray, ...]:
        """This process's images of batch `step`, int64 [b / processes] for each shuffle."""
        epoch, position = divmod(step, self.steps_per_epoch)
        batch = slice(position * self.batch_size, (position + 1) * self.batch_size)
        return tuple(
            _share(_permutation(self.images, self.seed, shuffle, epoch)[batch], self.process, self.processes)
            for shuffle in range(self.shuffles)
        )


@dataclasses.dataclass(frozen=True)
class EvalPlan:
    """All images once, in order; the last batch is filled up with images that weigh nothing. See `TrainPlan`."""

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
        """Batches in all, the same for every process."""
        return -(-self.images // self.batch_size)

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """This process's images of batch `step`, int64 [b / processes], and their weights float32, 0 for filling."""
        place = _share(np.arange(step * self.batch_size, (step + 1) * self.batch_size), self.process, self.processes)
        return np.minimum(place, self.images - 1), (place < self.images).astype(np.float32)


def _check_share(batch_size: int, process: int, processes: int) -> None:
    if batch_size % processes:
        raise UserError(f"batch_size is {batch_size}; {processes} processes allow multiples of {processes}")
    if not 0 <= process < processes:
        raise ValueError(f"process {process} of {processes}")


def _share(batch: np.ndarray, process: int, processes: int) -> np.ndarray:
    share = len(batch) // processes
    return batch[process * share : (process + 1) * share]


# Neighbouring batches are made at the same time and ask for the same few permutations.
@functools.lru_cache(maxsize=8)
def _permutation(n: int, seed: int, shuffle: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, shuffle, epoch]).permutation(n)
