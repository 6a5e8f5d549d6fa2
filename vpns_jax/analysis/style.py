"""The look that the figures share: one palette, one size of type, no more lines than the data need."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, FAINT = "#222222", "#d9d9d9"
ALARM, BLUE = "#c1272d", "#0072b2"
# Solid and dashed, in every figure.
STYLES: dict[str, Literal["-", "--"]] = {"prompted": "-", "plain": "--"}
# Okabe and Ito's colours, which the colour-blind can tell apart; the yellow is too pale for lines.
_COLOURS = (BLUE, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
# One more than colours, so that it takes 56 methods until two look the same.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# The same method looks the same in every figure, whichever others are there.
_FIXED = ("vpns", "hydra", "magnitude")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, its size in inches, that belongs to no global state."""
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Writes the figure as PNG at 150 dots an inch; makes its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=150)
    return path


def dress(axes: Axes, *, grid: str | None = None) -> None:
    """Takes off the box, leaves the two axes, and draws a faint grid along "x", "y" or not at all."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.tick_params(labelsize=9, color="#888888", labelcolor=INK)
    axes.set_axisbelow(True)
    if grid == "x":
        axes.grid(axis="x", color=FAINT, linewidth=0.8)
    elif grid == "y":
        axes.grid(axis="y", color=FAINT, linewidth=0.8)


def looks(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker by method; the well-known methods have their own, others take what follows."""
    others = [method for method in methods if method not in _FIXED]
    places = {name: place for place, name in enumerate((*_FIXED, *others))}
    return {
        method: (_COLOURS[places[method] % len(_COLOURS)], _MARKERS[places[method] % len(_MARKERS)])
        for method in methods
    }


def hundredfold(share: float | None) -> float:
    """A share as per cent; None is nan, which matplotlib leaves out."""
    return float("nan") if share is None else 100 * share
