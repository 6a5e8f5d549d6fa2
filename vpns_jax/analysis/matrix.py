"""The picture of which classes are taken for which: a matrix, or the worst classes and mistakes if there are many."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from vpns_jax.analysis import classes
from vpns_jax.analysis.confusion import Confusion
from vpns_jax.analysis.fonts import legible
from vpns_jax.analysis.style import ALARM, BLUE, INK, dress, new_figure, save
from vpns_jax.analysis.tables import percent

# The most letters of a class's name.
_LONGEST = 22


def confusion_figure(confusion: Confusion, names: Sequence[str], path: str | Path) -> Path:
    """Draws which classes are taken for which.

    Args:
      confusion: the counts, of at least one class.
      names: of all classes.
      path: the PNG to write.

    Returns:
      `path`.
    """
    if len(names) <= classes.MOST_CLASSES:
        return _matrix(confusion, names, path)
    return _worst(confusion, names, path)


def _matrix(confusion: Confusion, names: Sequence[str], path: str | Path) -> Path:
    """The counts of all pairs; the color is the share of the label's images."""
    count = len(names)
    side = 1.6 + 0.42 * max(count, 4)
    figure = new_figure(side + 1.2, side)
    axes = figure.subplots()
    shares = confusion.counts / np.maximum(confusion.images, 1)[:, None]
    drawn = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for (i, j), number in np.ndenumerate(confusion.counts):
        # Without zeros the mistakes are seen at once.
        if number:
            ink = "white" if shares[i, j] > 0.5 else INK
            # They lie within the matrix, and laying out a hundred of them would take a third of the time.
            axes.text(j, i, f"{number:,}", ha="center", va="center", fontsize=7, color=ink, in_layout=False)
    short = [_short(name) for name in names]
    _write(axes.set_xticks, short, rotation=45, ha="right", rotation_mode="anchor")
    _write(axes.set_yticks, short)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("taken for", fontsize=9, color=INK)
    axes.set_ylabel("label", fontsize=9, color=INK)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.7)
    bar.set_label("share of the label's images", fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return save(figure, path)


def _worst(confusion: Confusion, names: Sequence[str], path: str | Path) -> Path:
    """The classes that are recognized least, and the pairs that are mixed up most."""
    figure = new_figure(10.0, 4.2)
    left, right = figure.subplots(1, 2)
    recall, images = confusion.recall, confusion.images
    worst, mistakes = classes.shown(confusion), confusion.mistakes(classes.MOST_MISTAKES)
    sizes = [f"{_short(names[i])} ({images[i]:,})" for i in worst]
    _bars(left, [100 * (recall[i] or 0.0) for i in worst], sizes, BLUE)
    left.axvline(100 * (confusion.mean_class_accuracy or 0.0), color=INK, linestyle="--", linewidth=1.0)
    left.set_xlim(0, 100)
    left.set_xlabel(f"recall (%)   dashed: mean of all classes, {percent(confusion.mean_class_accuracy)}", fontsize=9)
    left.set_title(f"The worst {len(worst)} of {len(names)} classes (images)", fontsize=10, color=INK)
    pairs = [f"{_short(names[i])} \N{RIGHTWARDS ARROW} {_short(names[j])}" for i, j, _ in mistakes]
    _bars(right, [count for _, _, count in mistakes], pairs, ALARM)
    right.set_xlabel("images", fontsize=9)
    right.set_title("The most frequent mistakes (label \N{RIGHTWARDS ARROW} taken for)", fontsize=10, color=INK)
    return save(figure, path)


def _bars(axes: Axes, lengths: Sequence[float], names: Sequence[str], color: str) -> None:
    axes.barh(range(len(lengths)), lengths, height=0.72, color=color)
    _write(axes.set_yticks, names)
    axes.invert_yaxis()
    dress(axes, grid="x")
    axes.tick_params(axis="y", length=0, labelsize=8)


def _write(set_ticks: Callable[..., list], names: Sequence[str], **style: Any) -> None:
    """Puts a name at every whole number of an axis, legible in any script."""
    written = [legible(name) for name in names]
    families = dict.fromkeys(family for _, families in written for family in families)
    texts = [text for text, _ in written]
    set_ticks(range(len(names)), texts, fontfamily=[*families], parse_math=False, **style)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
