"""Streams of batches for data sets that do not fit on the device; grain decodes them on the host, ahead of time.

Batch k is a pure function of the plan and k. So a stream's state is a number, a stream can start at any batch, and
batches do not depend on the number of workers that decode them or of processes that share them.
"""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

import numpy as np
from absl import flags

from vpns_jax.data.dataset import large_size
from vpns_jax.data.materialize import resize
from vpns_jax.data.plan import EvalPlan, TrainPlan
from vpns_jax.data.source import Source
from vpns_jax.errors import UserError

T = TypeVar("T")
# Images uint8 [b, h, w, c] and labels int32 [b].
Batch = tuple[np.ndarray, np.ndarray]


class Stream(Iterator[T], Generic[T]):
    """Batches in order, made ahead of time. Close a stream, or use it in `with`, to end its workers.

    A stream's state is the number of the next batch. It also holds facts about the stream, so that the state of another
    stream is refused.
    """

    def __init__(
        self, make: Callable[[int], T], *, length: int, identity: dict[str, int], workers: int, threads: int | None
    ) -> None:
        """Makes a stream; see `train_stream`.

        Args:
          make: returns batch k, for k below `length`.
          length: the number of batches.
          identity: facts about the stream that distinguish it from others.
          workers: processes that decode beside this one; with 0, this process's threads do.
          threads: threads in each process; None takes all processors, at most 16 in total.
        """
        self._make, self._length, self._identity = make, length, identity
        self._workers = workers
        self._threads = threads or max(1, min(16, os.cpu_count() or 1) // max(1, workers))
        self._next = 0
        self._batches: Any = None

    def __next__(self) -> T:
        """The next batch.

        Raises:
          UserError: an image became unreadable; the stream is closed.
        """
        if self._next >= self._length:
            raise StopIteration
        if self._batches is None:
            self._batches = self._begin(self._next)
        batch: T | _Failure = next(self._batches)
        if isinstance(batch, _Failure):
            self.close()
            raise batch.error
        self._next += 1
        return cast(T, _copied(batch)) if self._workers else batch

    def __enter__(self) -> "Stream[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers. The stream can still be read; it continues with the next batch."""
        if self._batches is not None:
            self._batches.close()
        self._batches = None

    def get_state(self) -> dict[str, int]:
        """The stream's state, which can be written as JSON."""
        return {"next_batch": self._next, **self._identity}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues where another stream was, in this process or another one.

        Args:
          state: the other stream's state, from `get_state`.

        Raises:
          UserError: the state belongs to a stream with other batches.
        """
        identity = {key: value for key, value in state.items() if key != "next_batch"}
        if identity != self._identity:
            raise UserError(f"the saved state belongs to a stream with {identity}, and this one has {self._identity}")
        self.close()
        self._next = int(state["next_batch"])

    def _begin(self, start: int) -> Any:
        import grain

        batches = grain.MapDataset.source(_Batches(self._make, self._length))[start:]
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._threads)
        ahead = batches.to_iter_dataset(options)
        if self._workers:
            # grain's processes read absl flags, which are parsed only if absl started the program.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            ahead = ahead.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=2))
        return iter(ahead)


def train_stream(
    source: Source,
    *,
    image_size: int,
    batch_size: int,
    augmented: tuple[bool, ...],
    seed: int,
    process: int = 0,
    processes: int = 1,
    workers: int = 0,
    threads: int | None = None,
) -> Stream[tuple[Batch, ...]]:
    """Endless training batches: one for each pass of an iteration, and each pass has its own order of images.

    Args:
      source: the images.
      image_size: the network's image size in pixels. A pass with augmentation gets images of `dataset.large_size` of
        that, which are cropped and flipped on the device (`augment.random_crop_flip`).
      batch_size: b, over all processes.
      augmented: for each pass of an iteration, whether it is augmented: (True,) in the paper's protocol, (False, True)
        in the released code's.
      seed: the seed of the orders.
      process: `jax.process_index()`; this process gets its share of each batch.
      processes: `jax.process_count()`.
      workers: processes that decode beside this one; with 0, this process's threads do.
      threads: threads in each process, each making a batch; None takes all processors, at most 16 in total.

    Returns:
      A stream of tuples: for each pass (images uint8 `[b / processes, h, w, c]`, labels int32 `[b / processes]`).

    Raises:
      UserError: a batch is larger than the data set, or cannot be shared evenly by the processes.
    """
    plan = TrainPlan(len(source), batch_size, len(augmented), seed, process, processes)
    sizes = tuple(large_size(image_size) if crops else image_size for crops in augmented)
    identity = {"images": len(source), "batch_size": batch_size, "shuffles": len(augmented), "seed": seed}
    return Stream(
        _MakeTrain(source, plan, sizes), length=sys.maxsize, identity=identity, workers=workers, threads=threads
    )


def eval_stream(
    source: Source,
    *,
    image_size: int,
    batch_size: int,
    process: int = 0,
    processes: int = 1,
    workers: int = 0,
    threads: int | None = None,
) -> Stream[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Every image of a source once, in order.

    Args:
      source: the images.
      image_size: the network's image size in pixels.
      batch_size: b, over all processes.
      process: see `train_stream`.
      processes: see `train_stream`.
      workers: see `train_stream`.
      threads: see `train_stream`.

    Returns:
      A stream of (images uint8 `[b / processes, image_size, image_size, c]`, labels int32 `[b / processes]`, weights
      float32 `[b / processes]`). Weights are 0 for padding in the last batch. All processes have the same number of
      batches.

    Raises:
      UserError: a batch is empty, or cannot be shared evenly by the processes.
    """
    plan = EvalPlan(len(source), batch_size, process, processes)
    identity = {"images": len(source), "batch_size": batch_size}
    make = _MakeEval(source, plan, image_size)
    return Stream(make, length=plan.steps, identity=identity, workers=workers, threads=threads)


# The following are classes instead of closures, because they are pickled and sent to worker processes.


@dataclasses.dataclass(frozen=True)
class _Failure:
    """Takes the place of a batch with an unreadable image."""

    error: UserError


@dataclasses.dataclass(frozen=True)
class _Batches(Generic[T]):
    """Random access to batches, for grain.

    A `UserError` is returned as a value, and `Stream` raises it. If a worker raised it, grain would leave the shared
    memory of other batches behind, and Python would print warnings about leaks after the error.
    """

    make: Callable[[int], T]
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> T | _Failure:
        try:
            return self.make(int(index))
        except UserError as error:
            return _Failure(error)


@dataclasses.dataclass(frozen=True)
class _MakeTrain:
    source: Source
    plan: TrainPlan
    sizes: tuple[int, ...]

    def __call__(self, step: int) -> tuple[Batch, ...]:
        indices = self.plan.indices(step)
        return tuple(_decode(self.source, batch, size) for batch, size in zip(indices, self.sizes, strict=True))


@dataclasses.dataclass(frozen=True)
class _MakeEval:
    source: Source
    plan: EvalPlan
    size: int

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        indices, weights = self.plan.indices(step)
        return (*_decode(self.source, indices, self.size), weights)


def _copied(batch: Any) -> Any:
    """Copies a batch out of a worker's shared memory. Shared memory still in use when the program ends is a leak."""
    return tuple(map(_copied, batch)) if isinstance(batch, tuple) else np.array(batch)


def _decode(source: Source, indices: np.ndarray, size: int) -> Batch:
    pairs = [source[int(index)] for index in indices]
    images = np.stack([resize(image, size) for image, _ in pairs])
    return images, np.array([label for _, label in pairs], np.int32)
