"""The common style of the figures: one palette, one font size, and few lines beside the data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vpns_jax.files import whole
from vpns_jax.storage import storage_errors

INK, FAINT = "#222222", "#d9d9d9"
ALARM, BLUE = "#c1272d", "#0072b2"
# The line styles in every figure.
STYLES: dict[str, Literal["-", "--"]] = {"prompted": "-", "plain": "--"}
# Okabe and Ito's colors, which color-blind readers can distinguish, without the yellow, which is too pale for lines.
_COLORS = (BLUE, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
# There is one more marker than colors, so 56 methods look different.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# These methods look the same in every figure, whichever other methods are in it.
_FIXED = ("vpns", "hydra", "magnitude")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches at 150 dots an inch, outside of matplotlib's global state."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def save(figure: Figure, path: str | Path) -> Path:
    """Writes a figure as PNG, whole or not at all.

    Args:
      figure: a figure of `new_figure`.
      path: the file; its folder is made if needed.

    Returns:
      The path.

    Raises:
      UserError: the disk refuses; names the file.
    """
    path = Path(path)
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as file:
        # `savefig` goes through a figure twice, the first time for a layout that drawing makes, too.
        FigureCanvasAgg(figure).print_png(file)
    return path


def dress(axes: Axes, *, grid: str | None = None) -> None:
    """Removes the box except for the two axes, and draws a faint grid along "x", "y" or not at all."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.tick_params(labelsize=9, color="#888888", labelcolor=INK)
    axes.set_axisbelow(True)
    if grid == "x":
        axes.grid(axis="x", color=FAINT, linewidth=0.8)
    elif grid == "y":
        axes.grid(axis="y", color=FAINT, linewidth=0.8)


def looks(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Color and marker by method. The methods of the paper have fixed ones, the others take those that follow."""
    others = [method for method in methods if method not in _FIXED]
    places = {name: place for place, name in enumerate((*_FIXED, *others))}
    return {
        method: (_COLORS[places[method] % len(_COLORS)], _MARKERS[places[method] % len(_MARKERS)]) for method in methods
    }


def hundredfold(share: float | None) -> float:
    """A share in percent; None becomes nan, which matplotlib leaves out."""
    return float("nan") if share is None else 100 * share
