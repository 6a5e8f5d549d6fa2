"""Batches of data sets that do not fit on the device: decoded on the host by grain, ahead of time and in parallel.

Batch k is a pure function of the plan and k. So the state of a stream is a number; how many workers decode, and how
many processes share the batches, changes nothing in them; and a stream can begin anywhere.
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
    """Batches in order, made ahead of time; close it, or use it in `with`, to end its workers.

    Of its state, `get_state` and `set_state`, the number of the next batch is what counts; the rest is there to refuse
    the state of another stream.
    """

    def __init__(
        self, make: Callable[[int], T], *, length: int, identity: dict[str, int], workers: int, threads: int | None
    ) -> None:
        """See `train_stream`. `make(k)` is batch k, for k below `length`; `identity` tells streams apart."""
        self._make, self._length, self._identity = make, length, identity
        self._workers = workers
        self._threads = threads or max(1, min(16, os.cpu_count() or 1) // max(1, workers))
        self._next = 0
        self._batches: Any = None

    def __next__(self) -> T:
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
        """Ends the workers. The stream can still be read: it begins again where it was."""
        if self._batches is not None:
            self._batches.close()
        self._batches = None

    def get_state(self) -> dict[str, int]:
        """Where the stream is; can be written as JSON."""
        return {"next_batch": self._next, **self._identity}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to where a stream was, in this process or another.

        Raises:
          UserError: the state is of a stream with other batches.
        """
        found = {key: value for key, value in state.items() if key != "next_batch"}
        if found != self._identity:
            raise UserError(f"the saved state belongs to a stream with {found}, and this one has {self._identity}")
        self.close()
        self._next = int(state["next_batch"])

    def _begin(self, start: int) -> Any:
        import grain

        batches = grain.MapDataset.source(_Batches(self._make, self._length))[start:]
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._threads)
        ahead = batches.to_iter_dataset(options)
        if self._workers:
            # grain's processes read absl flags, which only a main that absl started has parsed.
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
    """Endless batches to train on, one for each pass of an iteration; every pass has a shuffle of its own.

    Args:
      source: the images.
      image_size: what a pass takes. An augmented pass gets its images at `dataset.large_size` of that, to be cropped
        and flipped on the device (`augment.random_crop_flip`).
      batch_size: b, over all processes.
      augmented: for each pass of an iteration, whether it is augmented: (True,) for the paper's protocol,
        (False, True) for the released code's.
      seed: of the shuffles.
      process, processes: `jax.process_index()` and `jax.process_count()`: which share of each batch is wanted.
      workers: processes that decode besides this one; with 0, threads of this one do.
      threads: in each process, each making a batch; by default what the machine has, at most 16 in all.

    Returns:
      A stream of tuples, for each pass (images uint8 [b / processes, h, w, c], labels int32 [b / processes]).

    Raises:
      UserError: a batch larger than the data set, or one that the processes cannot share evenly.
    """
    plan = TrainPlan(len(source), batch_size, len(augmented), seed, process, processes)
    sizes = tuple(large_size(image_size) if one else image_size for one in augmented)
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
    """Every image of `source` once, in order; arguments as `train_stream`'s.

    Returns:
      A stream of (images uint8 [b / processes, image_size, image_size, c], labels int32 [b / processes], weights
      float32 [b / processes]), weights 0 where the last batch is filled up. It has as many batches in every process.
    """
    plan = EvalPlan(len(source), batch_size, process, processes)
    identity = {"images": len(source), "batch_size": batch_size}
    make = _MakeEval(source, plan, image_size)
    return Stream(make, length=plan.steps, identity=identity, workers=workers, threads=threads)


# Classes and no closures below: they travel to worker processes.


@dataclasses.dataclass(frozen=True)
class _Failure:
    """Stands in a batch's place where an image of it cannot be read."""

    error: UserError


@dataclasses.dataclass(frozen=True)
class _Batches(Generic[T]):
    """The random access that grain reads from.

    A user's error is handed over as a value, to be raised by `Stream`: where a worker raises, grain leaves the shared
    memory of the batches beside it, and Python speaks of leaks after the error line.
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
        return tuple(_decode(self.source, one, size) for one, size in zip(indices, self.sizes, strict=True))


@dataclasses.dataclass(frozen=True)
class _MakeEval:
    source: Source
    plan: EvalPlan
    size: int

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        indices, weights = self.plan.indices(step)
        return (*_decode(self.source, indices, self.size), weights)


def _copied(batch: Any) -> Any:
    """A batch out of the memory it shares with a worker: what still holds it when the program ends would be a leak."""
    return tuple(map(_copied, batch)) if isinstance(batch, tuple) else np.array(batch)


def _decode(source: Source, indices: np.ndarray, size: int) -> Batch:
    pairs = [source[int(index)] for index in indices]
    images = np.stack([resize(image, size) for image, _ in pairs])
    return images, np.array([label for _, label in pairs], np.int32)
