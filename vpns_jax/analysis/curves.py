"""The figure of one cell's training curves: loss and accuracies in all stages."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from vpns_jax.analysis.style import BLUE, INK, STYLES, dress, new_figure, save

_COLORS = {"prompted": BLUE, "plain": INK}


def curves_figure(log: Iterable[Mapping[str, Any]], path: str | Path) -> Path:
    """Draws the loss and the validation accuracies of one cell, one stage after the other.

    Args:
      log: the cell's rows of metrics.jsonl. Epochs may start again in each stage, at 0 or 1.
      path: the PNG to write.

    Returns:
      `path`.

    Raises:
      ValueError: there are no rows, or they belong to more than one cell.
    """
    log = list(log)
    cells = sorted({row["cell"] for row in log})
    if len(cells) != 1:
        raise ValueError(f"curves are drawn of one cell, got {', '.join(cells) or 'no rows'}")
    figure = new_figure(7.0, 5.0)
    loss, accuracy = figure.subplots(2, 1, sharex=True)
    handles = {}
    stages = _stages(log)
    for number, (epochs, stage) in enumerate(stages):
        _curve(loss, epochs, [row.get("loss") for row in stage], INK, "-")
        for kind, style in STYLES.items():
            shares = [row.get(f"val_{kind}") for row in stage]
            values = [None if share is None else 100 * share for share in shares]
            if drawn := _curve(accuracy, epochs, values, _COLORS[kind], style):
                handles[kind] = drawn
        _name_stage(loss, accuracy, stage[0]["stage"], epochs[0], first=number == 0)
    loss.set_xlim(stages[0][0][0] - 0.5, stages[-1][0][-1] + 0.5)
    for axes, label in ((loss, "training loss"), (accuracy, "validation accuracy (%)")):
        dress(axes, grid="y")
        axes.set_ylabel(label, fontsize=10)
    accuracy.set_xlabel("epoch", fontsize=10)
    accuracy.xaxis.set_major_locator(MaxNLocator(integer=True))
    accuracy.legend(handles.values(), handles.keys(), frameon=False, fontsize=9, loc="lower right")
    figure.suptitle(cells[0], fontsize=11, color=INK, parse_math=False)
    return save(figure, path)


def _stages(log: Sequence[Mapping[str, Any]]) -> list[tuple[list[int], list[Mapping[str, Any]]]]:
    """The stages in order of appearance; their epochs are numbered through."""
    stages: list[tuple[list[int], list[Mapping[str, Any]]]] = []
    for name in dict.fromkeys(row["stage"] for row in log):
        stage = sorted((row for row in log if row["stage"] == name), key=lambda row: row["epoch"])
        shift = stages[-1][0][-1] + 1 - stage[0]["epoch"] if stages else 0
        stages.append(([row["epoch"] + shift for row in stage], stage))
    return stages


def _curve(axes: Axes, epochs: Sequence[int], values: Sequence[float | None], color: str, style: str) -> Any | None:
    known = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if value is not None]
    if not known:
        return None
    # A few points are marked. With many points, markers would hide the line.
    marker = "o" if len(known) <= 20 else ""
    (line,) = axes.plot(*zip(*known, strict=True), style, color=color, marker=marker, markersize=3.5)
    return line


def _name_stage(loss: Axes, accuracy: Axes, name: str, epoch: int, *, first: bool) -> None:
    start = epoch - 0.5
    if not first:
        for axes in (loss, accuracy):
            axes.axvline(start, color="#888888", linewidth=1.0)
    loss.text(start, 1.03, f" {name}", transform=loss.get_xaxis_transform(), fontsize=9, color=INK)
