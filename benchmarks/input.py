"""The share of training time that images cost: images in arrays on the device, and JPEGs that are decoded on the fly.

    python -m benchmarks.input --model resnet18 --image-size 32 --batch 64

All ways run the same iterations of stage retrain. `waited` is the additional time, compared with a single cropped batch
on the device. On a CPU, decoding and the network share the cores, so this time is not idle time.
"""

import argparse
import contextlib
import dataclasses
import functools
import io
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from PIL import Image

from benchmarks import measure
from benchmarks.step import CLASSES, iteration, make_batch, make_variables, start
from vpns_jax import models
from vpns_jax.data.dataset import large_size
from vpns_jax.data.decode import decode_image
from vpns_jax.data.materialize import resize
from vpns_jax.parallel import sharding
from vpns_jax.training.batches import Batch, Resident, Split, Streamed
from vpns_jax.training.epochs import epoch_runner, nothing
from vpns_jax.training.passes import Stage
from vpns_jax.training.state import Groups, TrainState

STAGE = "retrain, masked"


@dataclasses.dataclass(frozen=True, eq=False)
class Jpegs:
    """JPEG files in memory, decoded each time an image is requested."""

    files: list[bytes]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        return decode_image(self.files[index]), int(self.labels[index])


def draw(count: int, size: int) -> Jpegs:
    """Draws JPEGs of smooth noise, which compresses like photographs."""
    rng, files = np.random.default_rng(0), []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (size // 8, size // 8, 3), np.uint8))
        with io.BytesIO() as file:
            coarse.resize((size, size), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            files.append(file.getvalue())
    return Jpegs(files, (np.arange(count) % CLASSES).astype(np.int32))


def decoded(source: Jpegs, image_size: int) -> Resident:
    """Decodes all images to the device."""
    images = [source[i][0] for i in range(len(source))]
    return Resident(
        images=jax.device_put(np.stack([resize(image, image_size) for image in images])),
        labels=jax.device_put(source.labels),
        large=jax.device_put(np.stack([resize(image, large_size(image_size)) for image in images])),
        flip=True,
    )


class Epochs:
    """Training with one way to get images; each call trains an epoch and updates the state."""

    def __init__(self, begin: tuple[Stage, TrainState], data: Split, stack: contextlib.ExitStack) -> None:
        self._stage, self._state = begin
        runner = epoch_runner(self._stage, data, jax.random.key(0), 0, None, lambda share: None)
        self._run, self._epoch = stack.enter_context(runner), 0

    def __call__(self) -> Any:
        """Trains an epoch, and returns its metrics."""
        self._state, metrics = self._run(self._state, self._epoch, nothing(self._stage))
        self._epoch += 1
        return metrics


class OneBatch:
    """An epoch's iterations, all on the same batch."""

    def __init__(self, begin: tuple[Stage, TrainState], batch: Batch, iterations: int) -> None:
        stage, state = begin
        self._state, self._frozen = dataclasses.replace(state, frozen={}), state.frozen
        batches = (batch,) * len(stage.passes)

        @functools.partial(jax.jit, donate_argnums=0)
        def run(state: TrainState, frozen: Groups) -> tuple[TrainState, Any]:
            def body(state: TrainState, _: None) -> tuple[TrainState, Any]:
                return iteration(stage, state, frozen, batches, jax.random.key(0))

            return lax.scan(body, state, length=iterations)

        self._run = run

    def __call__(self) -> Any:
        """Trains an epoch, and returns its metrics."""
        self._state, metrics = self._run(self._state, self._frozen)
        return metrics


def ways(
    sizes: dict[str, Any], iterations: int, workers: list[int], stack: contextlib.ExitStack
) -> dict[str, Callable]:
    """The compared ways to get images.

    Args:
      sizes: the network and its sizes, see `benchmarks.step.start`.
      iterations: iterations in an epoch.
      workers: for each streamed way, the number of processes that decode; 0 for threads.
      stack: closes the streams at the end.

    Returns:
      Functions that train an epoch, by name; the others are compared with the first.
    """
    batch, image_size = sizes["batch"], sizes["image_size"]
    begin = functools.partial(start, STAGE, make_variables(sizes["model"], image_size), **sizes)
    source = draw(batch * iterations, 2 * image_size)
    return {
        "one batch": OneBatch(begin(), make_batch(batch, image_size), iterations),
        "on the device": Epochs(begin(), decoded(source, image_size), stack),
        **{
            f"streamed, {f'{count} processes' if count else 'threads'}": Epochs(
                begin(), Streamed(source, image_size, count, True), stack
            )
            for count in workers
        },
    }


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark, prints a table and, with --json, writes a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.input", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=models.accepted_names(), default="resnet18")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=10, help="in an epoch")
    parser.add_argument("--workers", type=int, nargs="*", default=[0], help="processes that decode; 0 for threads")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--json")
    chosen = parser.parse_args(arguments)
    sizes = {key: getattr(chosen, key) for key in ("model", "image_size", "batch", "dtype")}
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.set_mesh(sharding.make_mesh(chosen.batch)))
        functions = ways(sizes, chosen.iterations, chosen.workers, stack)
        for function in functions.values():
            jax.block_until_ready(function())  # Compiles.
        seconds = measure.interleaved(functions, chosen.repeats)
    rows = [
        {
            "images": name,
            "ms an iteration": 1e3 * total / chosen.iterations,
            "images/s": chosen.batch * chosen.iterations / total,
            "waited, %": 100 * (1 - seconds["one batch"] / total),
        }
        for name, total in seconds.items()
    ]
    print(measure.table(rows))
    print(measure.facts())
    if chosen.json:
        measure.write_json(chosen.json, "input", rows)


if __name__ == "__main__":
    main()
