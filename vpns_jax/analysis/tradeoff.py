"""The figure of test accuracy against sparsity, with a line for each method."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from vpns_jax.analysis.style import INK, STYLES, dress, hundredfold, looks, new_figure, save
from vpns_jax.analysis.summary import DENSE, Row, methods, rows


def sparsity_figure(summary: Mapping[str, Any], path: str | Path) -> Path:
    """Draws test accuracy against sparsity: each method prompted and plain, and the dense network.

    The accuracies are those of the weights best on validation. Error bars (a band for the dense network) are the sample
    standard deviation over seeds. Methods are shifted sideways a little, so that error bars do not overlap. Unfinished
    cells are left out.

    Args:
      summary: the contents of summary.json.
      path: the PNG to write.

    Returns:
      `path`.
    """
    figure = new_figure(7.5, 4.6)
    axes = figure.subplots()
    table = rows(summary)
    sparse = [row for row in table if row.method != DENSE]
    places = sorted({round(100 * row.sparsity, 6) for row in sparse})
    handles, kinds = [], set()
    styles = looks([method for method in methods(summary) if method != DENSE])
    for number, (method, (color, marker)) in enumerate(styles.items()):
        aside = (number - (len(styles) - 1) / 2) * 0.008 * (places[-1] - places[0] or 10.0)
        mine = [row for row in sparse if row.method == method]
        kinds |= {kind for kind in STYLES if _line(axes, mine, kind, color, marker, aside)}
        handles.append(Line2D([], [], color=color, marker=marker, markersize=5, label=method))
    for row in table:
        if row.method == DENSE:
            handles += _dense_lines(axes, row)
    handles += [
        Line2D([], [], color="#888888", linestyle=style, label=kind) for kind, style in STYLES.items() if kind in kinds
    ]
    axes.set_xticks(_apart(places))
    axes.set_xlabel("sparsity (%)", fontsize=10)
    axes.set_ylabel("test accuracy (%)", fontsize=10)
    dress(axes, grid="y")
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    return save(figure, path)


def _line(axes: Axes, mine: Sequence[Row], kind: str, color: str, marker: str, aside: float) -> bool:
    points = [(row, row.estimate("test", "best", kind)) for row in mine]
    points = [(row, estimate) for row, estimate in points if estimate.values]
    if points:
        axes.errorbar(
            [100 * row.sparsity + aside for row, _ in points],
            [hundredfold(estimate.mean) for _, estimate in points],
            yerr=[hundredfold(estimate.std) for _, estimate in points],
            color=color,
            marker=marker,
            markersize=5,
            markerfacecolor=color if kind == "prompted" else "white",
            linestyle=STYLES[kind],
            capsize=3,
            elinewidth=1.0,
        )
    return bool(points)


def _dense_lines(axes: Axes, row: Row) -> list[Line2D]:
    lines = []
    for kind, style in STYLES.items():
        estimate = row.estimate("test", "best", kind)
        if estimate.mean is not None:
            mean, std = 100 * estimate.mean, hundredfold(estimate.std)
            label = DENSE if kind == "plain" else f"{DENSE}, {kind}"
            lines.append(axes.axhline(mean, color=INK, linestyle=style, linewidth=1.2, label=label))
            if estimate.std:
                axes.axhspan(mean - std, mean + std, color=INK, alpha=0.08, linewidth=0)
    return lines


def _apart(places: Iterable[float]) -> list[float]:
    """The rising places, without those whose labels would touch the label before them."""
    places = list(places)
    ticks: list[float] = []
    for place in places:
        if not ticks or place - ticks[-1] >= 0.06 * (places[-1] - places[0]):
            ticks.append(place)
    return ticks
