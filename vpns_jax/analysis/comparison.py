"""Comparison of methods: accuracy over seeds, and paired differences by seed with confidence intervals."""

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any

from scipy import special

from vpns_jax.analysis.summary import Row, rows

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference in accuracy between a method and a reference at one density, over their common seeds.

    Attributes:
      method: the method.
      density: share of weights kept.
      seeds: the number of common seeds.
      mean: the mean of the differences by seed.
      low: the lower end of the mean's 95% confidence interval by Student's t; None for fewer than two seeds.
      high: the upper end.
    """

    method: str
    density: float
    seeds: int
    mean: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """The result: "wins" or "loses" if the interval excludes zero, otherwise "ties"; "?" without an interval."""
        if self.low is None or self.high is None:
            return "?"
        return "wins" if self.low > 0 else "loses" if self.high < 0 else "ties"


def headline(cell: Mapping[str, Any], *, split: str = "test") -> float:
    """A cell's accuracy with the weights that were best on validation.

    Args:
      cell: a cell of summary.json.
      split: "val" or "test".

    Returns:
      The prompted accuracy; the plain one if the cell has no prompt.
    """
    best = cell[split]["best"]
    # A summary that was written by hand may leave out what the cell lacks.
    prompted: float | None = best.get("prompted")
    return best["plain"] if prompted is None else prompted


def differences(summary: Mapping[str, Any], reference: str) -> list[Difference]:
    """Compares all other methods with a reference, at all densities at which both have common seeds.

    Args:
      summary: the contents of summary.json.
      reference: a method's name.

    Returns:
      The differences.
    """
    table = rows(summary)
    known = {row.density: _by_seed(row) for row in table if row.method == reference}
    result = []
    for row in table:
        mine, theirs = _by_seed(row), known.get(row.density, {})
        common = [seed for seed in mine if seed in theirs]
        if row.method != reference and common:
            result.append(_difference(row, [mine[seed] - theirs[seed] for seed in common]))
    return result


def _by_seed(row: Row) -> dict[int, float]:
    return {cell["seed"]: headline(cell) for cell in row.cells}


def _difference(row: Row, values: list[float]) -> Difference:
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return Difference(row.method, row.density, count, mean, None, None)
    spread = statistics.stdev(values) / math.sqrt(count)
    # The quantile of Student's t. Every start of a run would wait two seconds for `scipy.stats`, which has it, too.
    reach = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * spread
    return Difference(row.method, row.density, count, mean, mean - reach, mean + reach)
