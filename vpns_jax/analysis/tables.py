"""The main table, with a row for each method and sparsity, as cells, Markdown, or text for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from vpns_jax.analysis.summary import Estimate, Row, rows

# Line breaks are those of the headings in a terminal.
HEADINGS = (
    "method",
    "sparsity",
    "seeds",
    "test prompted\n%",
    "test plain\n%",
    "mean per\nclass %",
    "density\n%",
    "density without\nhead %",
    "optimizer\nsteps",
    "forward\npasses",
    "seconds",
)
NOTE = (
    "Test accuracy of the weights that were best on validation; per class: the mean over classes of the share that is "
    "recognized, prompted where there is a prompt. "
    "Where there is more than one seed: mean ± sample standard deviation for accuracy, "
    "the least and the most for steps and passes that differ, means for the rest."
)
NOTHING = "—"


def table_cells(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table's rows as text, one string for each of `HEADINGS`."""
    return [_cells(row) for row in rows(summary)]


def markdown_table(summary: Mapping[str, Any]) -> str:
    """The main table in Markdown, ending in a newline."""
    lines = [tuple(heading.replace("\n", " ") for heading in HEADINGS)]
    lines += [(":--", *["--:"] * (len(HEADINGS) - 1))]
    lines += [tuple(cell.replace("|", r"\|") for cell in cells) for cells in table_cells(summary)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def text_table(summary: Mapping[str, Any]) -> str:
    """The main table in aligned columns for a terminal, ending in a newline."""
    return aligned(HEADINGS, table_cells(summary))


def aligned(headings: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table in aligned columns, ending in a newline; headings may have a line break."""
    tops, bottoms = zip(*((*heading.split("\n"), "")[:2] for heading in headings), strict=True)
    widths = [max(map(len, column)) for column in zip(tops, bottoms, *body, strict=True)]
    lines = [tops, *([bottoms] if any(bottoms) else []), tuple("-" * width for width in widths), *body]
    return "".join(_align(line, widths) + "\n" for line in lines)


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage without the sign, or a dash for None."""
    return NOTHING if share is None else f"{100 * share:.{digits}f}"


def sparsity_name(density: float) -> str:
    """A density as a sparsity, with as many digits as the density has: 0.2 is "80%"."""
    return f"{round(100 * (1 - density), 8):.12g}%"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.method,
        sparsity_name(row.density),
        str(len(row.cells)),
        _accuracy(row.estimate("test", "best", "prompted"), len(row.cells)),
        _accuracy(row.estimate("test", "best", "plain"), len(row.cells)),
        _accuracy(row.headline("mean_class_accuracy"), len(row.cells)),
        percent(row.estimate("achieved_density").mean, digits=2),
        percent(row.estimate("density_without_head").mean, digits=2),
        _whole(row.total("optimizer_steps")),
        _whole(row.total("forward_passes")),
        _seconds(row.total("seconds")),
    )


def _accuracy(estimate: Estimate, seeds: int) -> str:
    text = percent(estimate.mean)
    if estimate.std is not None:
        text += f" ± {percent(estimate.std)}"
    # The count shows that some seeds are missing from the mean, because they were stopped before their test.
    return text if estimate.count in (0, seeds) else f"{text} (of {estimate.count})"


def _whole(estimate: Estimate) -> str:
    if not estimate.values:
        return NOTHING
    least, most = min(estimate.values), max(estimate.values)
    return f"{least:,.0f}" if least == most else f"{least:,.0f} to {most:,.0f}"


def _seconds(estimate: Estimate) -> str:
    return NOTHING if estimate.mean is None else f"{estimate.mean:,.1f}"


def _align(cells: Sequence[str], widths: list[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]).rstrip()
