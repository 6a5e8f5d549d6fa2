"""Methods side by side: accuracy over seeds, and differences seed by seed with their confidence intervals."""

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any

from scipy import stats

from vpns_jax.analysis.summary import Estimate, Row, rows

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
    """What a method gains on a reference at one density, in accuracy, over the seeds that both have.

    Attributes:
      mean: of the differences, seed by seed.
      low, high: its 95% confidence interval by Student's t; None of fewer than two seeds.
    """

    method: str
    density: float
    seeds: int
    mean: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """ "wins" or "loses" where the interval leaves out zero; "ties" where it does not; "?" without one."""
        if self.low is None or self.high is None:
            return "?"
        return "wins" if self.low > 0 else "loses" if self.high < 0 else "ties"


def headline(cell: Mapping[str, Any], *, split: str = "test") -> float:
    """Accuracy of the weights best on validation: prompted if the cell has a prompt, plain if not."""
    best = cell[split]["best"]
    return best["plain"] if best["prompted"] is None else best["prompted"]


def accuracy(row: Row) -> Estimate:
    """The headline accuracy over the seeds of a row."""
    return Estimate(tuple(headline(cell) for cell in row.cells))


def differences(summary: Mapping[str, Any], reference: str) -> list[Difference]:
    """Every other method against `reference`, wherever both have seeds in common at a density."""
    table = rows(summary)
    known = {row.density: _by_seed(row) for row in table if row.method == reference}
    found = []
    for row in table:
        mine, theirs = _by_seed(row), known.get(row.density, {})
        common = [seed for seed in mine if seed in theirs]
        if row.method != reference and common:
            found.append(_difference(row, [mine[seed] - theirs[seed] for seed in common]))
    return found


def _by_seed(row: Row) -> dict[int, float]:
    return {cell["seed"]: headline(cell) for cell in row.cells}


def _difference(row: Row, values: list[float]) -> Difference:
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return Difference(row.method, row.density, count, mean, None, None)
    spread = statistics.stdev(values) / math.sqrt(count)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * spread
    return Difference(row.method, row.density, count, mean, mean - reach, mean + reach)
