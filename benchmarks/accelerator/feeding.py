"""Images from the host: how many a core decodes, and how long a step waits for them."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from benchmarks import input as images
from benchmarks import measure
from benchmarks.accelerator import sizes
from benchmarks.accelerator.rows import Compared, Row, tried
from vpns_jax.data.dataset import large_size
from vpns_jax.data.materialize import resize
from vpns_jax.parallel import sharding

MODEL = "resnet18"


def rows(*, tiny: bool) -> Iterator[Row]:
    """The part."""
    chosen = sizes.of(MODEL, "bfloat16", tiny=tiny)
    batch, side = min(chosen.batch, 128), chosen.image_size
    yield tried(
        "One core", {"what": f"decode JPEGs of {2 * side} px for {side} px"}, lambda: _decoding(side, tiny=tiny)
    )
    iterations = 2 if tiny else 8
    workers = [0] if tiny else [0, max(1, measure.cores() - 2)]
    caption = f"{MODEL}, {side} px, batch {batch}, bfloat16, {measure.cores()} cores"
    sized = {"model": MODEL, "image_size": side, "batch": batch, "dtype": "bfloat16"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.set_mesh(sharding.make_mesh(batch)))
        functions = images.ways(sized, iterations, workers, stack)
        table = Compared(next(iter(functions)))
        for name, function in functions.items():
            epoch = functools.partial(_epoch, name, function, table, batch * iterations)
            yield tried(caption, {"images": name}, epoch)


def _decoding(side: int, *, tiny: bool) -> dict[str, float]:
    source = images.draw(8 if tiny else 64, 2 * side)
    begin = time.perf_counter()
    for i in range(len(source)):
        resize(source[i][0], large_size(side))
    return {"images/s": len(source) / (time.perf_counter() - begin)}


def _epoch(name: str, function: Callable[[], Any], table: Compared, count: int) -> dict[str, float]:
    jax.block_until_ready(function())
    seconds = measure.interleaved({"epoch": function}, 2)["epoch"]
    waited = table.columns(name, seconds, lambda alone: {"waited, %": 100 * (1 - alone / seconds)})
    return {"images/s": count / seconds, **waited}
