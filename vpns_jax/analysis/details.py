"""The second table of a report: each mask's multiply-adds, its time on this device, and its calibration error."""

from collections.abc import Mapping
from typing import Any

from vpns_jax.analysis.summary import Estimate, Row, dig, rows
from vpns_jax.analysis.tables import NOTHING, percent, sparsity_name

# Line breaks are those of the headings in a terminal.
HEADINGS = (
    "method",
    "sparsity",
    "multiply-adds\nM",
    "of dense\n%",
    "without head\nof dense %",
    "channels cut out\nof dense %",
    "calibration error\nprompted %",
    "calibration error\nplain %",
    "masked\nms a batch",
    "dense\nms a batch",
    "channels cut out\nms a batch",
)
NOTE = (
    "Means over seeds. Multiply-adds of all kernels for one image, on an ideal device that skips every pruned weight; "
    "of masks of channels also without those channels, a smaller dense network. "
    "Expected calibration error (15 bins) on the test split, of the weights that were best on validation. "
    "Times are medians, measured on this device."
)


def details_cells(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table's rows as text, one string for each of `HEADINGS`."""
    return [_cells(row) for row in rows(summary)]


def speed_line(summary: Mapping[str, Any]) -> str:
    """Whether the masks, and cutting out dead channels, made this device faster; "" if nothing was measured."""
    timed = [(cell["cell"], cell["latency"]) for cell in summary["cells"] if cell.get("latency")]
    if not timed:
        return ""
    faster = [f"{name} by a factor of {times['speedup']:.2f}" for name, times in timed if times["faster"]]
    others = [times for _, times in timed if not times["faster"]]
    lines = []
    if others:
        medians = sorted(times["speedup"] for times in others)
        ratio = f"{medians[0]:.2f}" if len(others) == 1 else f"{medians[0]:.2f} to {medians[-1]:.2f}"
        masks = "This mask does" if len(others) == 1 else f"These {len(others)} masks do"
        least, most = min(times["least"] for times in others), max(times["most"] for times in others)
        lines.append(
            f"{masks} not make this device faster: dense over masked time is {ratio} in the median, "
            f"{least:.2f} to {most:.2f} in single pairs of batches."
        )
    if faster:
        lines.append(f"Faster in every pair of batches timed: {', '.join(faster)}.")
    return " ".join([*lines, *_cut_out(summary)])


def _cut_out(summary: Mapping[str, Any]) -> list[str]:
    """How fast the networks of the cells are without their dead channels, where that was measured."""
    timed = [(cell["cell"], dig(cell, "shrunk", "latency")) for cell in summary["cells"]]
    known = [
        f"{name} {times['speedup']:.2f} ({times['least']:.2f} to {times['most']:.2f})" for name, times in timed if times
    ]
    what = "Without their dead channels, dense over their time in the median (and in single pairs of batches) is"
    return [f"{what}: {', '.join(known)}."] if known else []


def share(cell: Mapping[str, Any], *, without_head: bool) -> float | None:
    """The multiply-adds under a cell's mask, as a share of the dense network's.

    Args:
      cell: a cell of summary.json.
      without_head: whether the head is left out.

    Returns:
      The share in [0, 1]; None if the cell has no such numbers.
    """
    end = "_without_head" if without_head else ""
    dense, masked = (dig(cell, "multiply_adds", which + end) for which in ("dense", "masked"))
    return masked / dense if dense else None


def shrunk_share(cell: Mapping[str, Any]) -> float | None:
    """The multiply-adds of a network without its pruned channels, as a share of the dense network's.

    Args:
      cell: a cell of summary.json.

    Returns:
      The share in [0, 1]; None if the cell's mask is not one of channels.
    """
    dense, shrunk = (dig(cell, "shrunk", "multiply_adds", which) for which in ("dense", "shrunk"))
    return shrunk / dense if dense else None


def _known(values: list[float | None]) -> float | None:
    """The mean of the values that are not None."""
    return Estimate(tuple(x for x in values if x is not None)).mean


def _cells(row: Row) -> tuple[str, ...]:
    shares = [[share(cell, without_head=without_head) for cell in row.cells] for without_head in (False, True)]
    errors = [row.estimate("calibration_error", kind) for kind in ("prompted", "plain")]
    return (
        row.method,
        sparsity_name(row.density),
        _number(row.estimate("multiply_adds", "masked"), 1e-6),
        *(percent(_known(values), 2) for values in (*shares, [shrunk_share(cell) for cell in row.cells])),
        *(percent(error.mean) for error in errors),
        *(_number(row.estimate("latency", which), 1e3) for which in ("masked", "dense")),
        _number(row.estimate("shrunk", "latency", "shrunk"), 1e3),
    )


def _number(estimate: Estimate, factor: float) -> str:
    """A number with three significant digits, or with all digits before the point."""
    if estimate.mean is None:
        return NOTHING
    value = factor * estimate.mean
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
