"""The contents of summary.json, grouped by method and density: one row holds all seeds."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# The method name of the network that is fine-tuned without a mask, the baseline of the figures.
DENSE = "dense"


@dataclass(frozen=True)
class Estimate:
    """A quantity's values for the seeds that have it."""

    values: tuple[float, ...]

    @property
    def count(self) -> int:
        """The number of seeds."""
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """The mean; None without values."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """The sample standard deviation; None for fewer than two values, nan if a value is not finite."""
        if len(self.values) < 2:
            return None
        # `statistics.stdev` raises for nan and infinity, but a report must be possible for a diverged seed.
        return statistics.stdev(self.values) if all(map(math.isfinite, self.values)) else math.nan


@dataclass(frozen=True)
class Row:
    """The cells of one method at one density, one for each seed."""

    method: str
    density: float
    cells: tuple[Mapping[str, Any], ...]

    @property
    def sparsity(self) -> float:
        """The share of weights that the config asks to remove, in [0, 1]."""
        return 1.0 - self.density

    def estimate(self, *keys: str) -> Estimate:
        """A number of the cells, such as `estimate("test", "best", "plain")`, for the seeds that have it."""
        return _estimate(dig(cell, *keys) for cell in self.cells)

    def headline(self, *keys: str) -> Estimate:
        """Such a number prompted, or plain for cells without a prompt; `keys` lead to both."""
        pairs = [[dig(cell, *keys, kind) for kind in ("prompted", "plain")] for cell in self.cells]
        return _estimate(plain if prompted is None else prompted for prompted, plain in pairs)

    def total(self, key: str) -> Estimate:
        """A number that cells have for each stage, such as "seconds", summed over the stages."""
        return _estimate(total(cell, key) for cell in self.cells)


def rows(summary: Mapping[str, Any]) -> tuple[Row, ...]:
    """The rows by rising sparsity, then by the methods' order of appearance; the dense network comes first."""
    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for cell in summary["cells"]:
        groups.setdefault((cell["method"], cell["density"]), []).append(cell)
    order = methods(summary)
    made = (Row(method, density, tuple(cells)) for (method, density), cells in groups.items())
    return tuple(sorted(made, key=lambda row: (row.method != DENSE, row.sparsity, order.index(row.method))))


def methods(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """The methods in their order of appearance."""
    return tuple(dict.fromkeys(cell["method"] for cell in summary["cells"]))


def dig(tree: Mapping[str, Any], *keys: str) -> Any:
    """The value under nested keys; None if a key is missing, as in a cell whose run was stopped."""
    value: Any = tree
    for key in keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def total(cell: Mapping[str, Any], key: str) -> float | None:
    """The sum over stages of `cell[key]`; None if the cell has no such numbers."""
    stages = [value for value in (cell.get(key) or {}).values() if value is not None]
    return sum(stages) if stages else None


def note_lines(summary: Mapping[str, Any]) -> list[str]:
    """What was noted of cells, such as ties that decided a mask, or the share of a target that was reached."""
    return [f"{cell['cell']}: {note}" for cell in summary["cells"] for note in cell.get("notes") or ()]


def collapse_lines(summary: Mapping[str, Any]) -> list[str]:
    """Warnings about layers that lost all their weights."""
    lines = []
    for cell in summary["cells"]:
        sizes = {layer["path"]: layer["size"] for layer in cell.get("layers") or ()}
        for path in cell.get("collapsed") or ():
            weights = f"{sizes[path]:,} weights" if path in sizes else "weights"
            lines.append(f"{cell['cell']}: layer {path} keeps none of its {weights}")
    return lines


def _estimate(values: Iterable[float | None]) -> Estimate:
    return Estimate(tuple(float(value) for value in values if value is not None))
