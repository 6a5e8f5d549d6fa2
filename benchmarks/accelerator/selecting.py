"""The exact threshold and mask of all scores: our ways, and other ways, beside reading the scores once."""

import concurrent.futures
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks import measure, selection
from benchmarks.accelerator.rows import Compared, Row, tried

_SIZES = ("25M", "11.7M", "86M", "1.3M")
# NumPy computes on the host.
_HOST = "numpy.partition"


def rows(*, tiny: bool) -> Iterator[Row]:
    """The part."""
    for size in ("1.3M",) if tiny else _SIZES:
        tree, shapes = selection.TREES[size]
        yield from _table(f"{size} scores ({tree}), a tenth kept", [(3, 3, 8, 16), (16, 10)] if tiny else shapes())


def _table(caption: str, shapes: selection.Shapes) -> Iterator[Row]:
    """Times all functions, after a check that all are right."""
    scores = selection.draw(shapes)
    functions = {**selection.ways(scores), **selection.contenders(scores)}
    functions.pop(_HOST)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        # They compile at the same time, before any is timed.
        first = {name: pool.submit(function) for name, function in functions.items()}
    yield tried(caption, {"what": "all are NumPy's, bit for bit"}, functools.partial(_checked, first, scores))
    table = Compared(selection.READ)
    size = 4 * sum(math.prod(shape) for shape in shapes)
    for name, function in functions.items():
        yield tried(caption, {"what": name}, functools.partial(_measured, name, function, table, size))
    yield Row(caption, f"`{selection.READ}` is the maximum of one flat array.")


def _checked(first: Mapping[str, concurrent.futures.Future[Any]], scores: list[np.ndarray]) -> dict[str, str]:
    selection.check({name: future.result() for name, future in first.items()}, scores)
    return {}


def _measured(name: str, function: Callable[[], Any], table: Compared, size: int) -> dict[str, float]:
    seconds = measure.paced({"it": function})["it"]
    ratio = table.columns(name, seconds, lambda read: {"as reading once": seconds / read})
    return {"ms": 1e3 * seconds, **ratio, "GB/s, if read once": size / seconds / 1e9}
