"""The figure of the densities of all layers, with a panel for each method."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from vpns_jax.analysis.density import DensityReport, Layer
from vpns_jax.analysis.style import ALARM, INK, dress, looks, new_figure, save

_MOST_COLUMNS = 5


def layers_figure(reports: Mapping[str, DensityReport], path: str | Path) -> Path:
    """Draws the density of every layer in a panel for each method; the head stands apart.

    Args:
      reports: reports of the same network by method, at least one.
      path: the PNG to write.

    Returns:
      `path`.

    Raises:
      ValueError: there is no report, a report has no layers, or their layers differ.
    """
    layers = {method: (*report.body_layers, *report.head_layers) for method, report in reports.items()}
    names = [[layer.path for layer in some] for some in layers.values()]
    if not names or not names[0] or any(other != names[0] for other in names):
        raise ValueError("layers are drawn of one or more reports of the same network")
    places = _places(next(iter(reports.values())))
    columns = min(len(reports), _MOST_COLUMNS)
    lines = math.ceil(len(reports) / columns)
    figure = new_figure(2.2 + 1.8 * columns, lines * (1.5 + 0.19 * len(places)))
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    colors = looks(list(reports))
    for axes, (method, report) in zip(panels.flat, reports.items(), strict=False):
        _panel(axes, method, report, places, layers[method], colors[method][0])
    for axes in panels.flat[len(reports) :]:
        axes.set_visible(False)
    most = max(layer.density for some in layers.values() for layer in some)
    panels[0, 0].set_xlim(0, 100 * min(1.0, 1.08 * most or 1.0))
    panels[0, 0].set_yticks(places, [name.removesuffix("/kernel") for name in names[0]])
    panels[0, 0].set_ylim(places[-1] + 0.8, -0.8)
    figure.supxlabel("weights kept (%)   dashed: whole network", fontsize=10, color=INK)
    return save(figure, path)


def _places(report: DensityReport) -> list[float]:
    body, head = len(report.body_layers), len(report.head_layers)
    return [float(i) for i in range(body)] + [body + 0.8 + i for i in range(head)]


def _panel(
    axes: Axes,
    method: str,
    report: DensityReport,
    places: Sequence[float],
    layers: Sequence[Layer],
    color: str,
) -> None:
    heads = len(report.head_layers)
    colors = [color] * (len(layers) - heads) + ["#555555"] * heads
    axes.barh(places, [100 * layer.density for layer in layers], height=0.72, color=colors)
    axes.axvline(100 * report.density, color=INK, linestyle="--", linewidth=1.0)
    dress(axes, grid="x")
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.tick_params(axis="x", labelbottom=True)
    title = f"{method}\n{100 * report.density:.2f}% kept"
    if heads and heads < len(layers):
        title += f"\n{100 * report.density_without_head:.2f}% without head"
    axes.set_title(title, fontsize=9, color=INK)
    for place, layer in zip(places, layers, strict=True):
        if layer.kept == 0:
            note = axes.annotate("none kept", (0, place), xytext=(4, 0), textcoords="offset points")
            note.set(color=ALARM, fontsize=8, verticalalignment="center", fontweight="bold")
            note.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
