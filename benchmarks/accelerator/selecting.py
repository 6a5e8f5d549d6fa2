"""The exact threshold and mask of all scores: our ways, and other ways, beside reading the scores once."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import measure, selection
from benchmarks.accelerator.rows import Row, tried

_SIZES = ("11.7M", "25M", "86M", "1.3M")
# NumPy's is for the check, and computes on the host.
_HOST = "numpy.partition"


def rows(*, tiny: bool) -> Iterator[Row]:
    """The part."""
    for size in ("1.3M",) if tiny else _SIZES:
        tree, shapes = selection.TREES[size]
        drawn = [(3, 3, 8, 16), (16, 10)] if tiny else shapes()
        for name, measured in _measured(drawn):
            yield tried(f"{size} scores ({tree}), a tenth kept", {"what": name}, measured)
    yield Row(
        "1.3M scores (ResNet-18, a third as wide), a tenth kept", "`reading once` is the maximum of one flat array."
    )


def _measured(shapes: selection.Shapes) -> Iterator[tuple[str, Any]]:
    """Each function with what measures it; all are checked first, and then timed."""
    scores = selection.draw(shapes)
    functions = {**selection.ways(scores), **selection.contenders(scores)}
    functions.pop(_HOST)
    read: dict[str, float] = {}

    def measured(name: str) -> dict[str, float]:
        selection.check({name: functions[name]()}, scores)
        seconds = measure.paced({name: functions[name]})[name]
        read.setdefault(selection.READ, seconds)
        size = sum(np.prod(shape) for shape in shapes) * 4
        return {
            "ms": 1e3 * seconds,
            "as reading once": seconds / read[selection.READ],
            "GB/s, if read once": size / seconds / 1e9,
        }

    for name in functions:
        yield name, lambda name=name: measured(name)
