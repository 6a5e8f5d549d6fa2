"""The second table: what each mask leaves to compute, the time it takes here, and how well confidence is placed."""

from collections.abc import Mapping
from typing import Any

from vpns_jax.analysis.summary import Estimate, Row, dig, rows
from vpns_jax.analysis.tables import NOTHING, percent, sparsity_name

# A line break is where the terminal's table breaks the heading.
HEADINGS = (
    "method",
    "sparsity",
    "multiply-adds\nM",
    "of dense\n%",
    "without head\nof dense %",
    "calibration error\nprompted %",
    "calibration error\nplain %",
    "masked\nms a batch",
    "dense\nms a batch",
)
NOTE = (
    "Means over seeds. Multiply-adds of all kernels for one image, as few as a device that skips every pruned weight "
    "would need. Expected calibration error (15 bins) on the test split, of the weights that were best on validation. "
    "Times are medians, measured here."
)


def details_cells(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table's rows as text, one string for each of `HEADINGS`."""
    return [_cells(row) for row in rows(summary)]


def speed_line(summary: Mapping[str, Any]) -> str:
    """Whether the masks made this device faster, in a sentence or two; empty where none was measured."""
    timed = [(cell["cell"], cell["latency"]) for cell in summary["cells"] if cell.get("latency")]
    if not timed:
        return ""
    faster = [f"{name} by a factor of {found['speedup']:.2f}" for name, found in timed if found["faster"]]
    others = [found for _, found in timed if not found["faster"]]
    lines = []
    if others:
        medians = sorted(found["speedup"] for found in others)
        ratio = f"{medians[0]:.2f}" if len(others) == 1 else f"{medians[0]:.2f} to {medians[-1]:.2f}"
        masks = "This mask does" if len(others) == 1 else f"These {len(others)} masks do"
        least, most = min(found["least"] for found in others), max(found["most"] for found in others)
        lines.append(
            f"{masks} not make this device faster: dense over masked time is {ratio} in the median, "
            f"{least:.2f} to {most:.2f} in single pairs of batches."
        )
    if faster:
        lines.append(f"Masks that do, in every pair of batches timed: {', '.join(faster)}.")
    return " ".join(lines)


def share(cell: Mapping[str, Any], *, without_head: bool) -> float | None:
    """The multiply-adds that a cell's mask leaves, as a share of the dense network's."""
    end = "_without_head" if without_head else ""
    dense, masked = (dig(cell, "multiply_adds", which + end) for which in ("dense", "masked"))
    return masked / dense if dense else None


def _cells(row: Row) -> tuple[str, ...]:
    shares = [[share(cell, without_head=way) for cell in row.cells] for way in (False, True)]
    errors = [row.estimate("calibration_error", way) for way in ("prompted", "plain")]
    return (
        row.method,
        sparsity_name(row.density),
        _number(row.estimate("multiply_adds", "masked"), 1e-6),
        *(percent(Estimate(tuple(x for x in values if x is not None)).mean, 2) for values in shares),
        *(percent(one.mean) for one in errors),
        *(_number(row.estimate("latency", which), 1e3) for which in ("masked", "dense")),
    )


def _number(estimate: Estimate, factor: float) -> str:
    """Three digits, or all of those before the point."""
    if estimate.mean is None:
        return NOTHING
    value = factor * estimate.mean
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
