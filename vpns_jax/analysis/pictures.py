"""Figures with pictures: the prompt, and images with and without it."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from vpns_jax.analysis.fonts import legible
from vpns_jax.analysis.style import FAINT, INK, new_figure, save


def prompt_figure(delta: ArrayLike, support: ArrayLike, path: str | Path) -> Path:
    """Draws a learned prompt: its signed colors, and its strength at each pixel.

    Args:
      delta: float `[s, s, 3]`, the signed perturbation on the canvas.
      support: bool `[s, s]`, True where there is a prompt; other pixels are hatched.
      path: the PNG to write.

    Returns:
      `path`.

    Raises:
      ValueError: the shapes do not fit.
    """
    delta, support = np.asarray(delta, np.float32), np.asarray(support, bool)
    if delta.ndim != 3 or delta.shape[2] != 3 or support.shape != delta.shape[:2]:
        raise ValueError(f"delta must be [s, s, 3] and support [s, s], got {delta.shape} and {support.shape}")
    peak = float(np.abs(delta[support]).max(initial=0.0))
    scale = peak or 1.0
    # 0 is middle gray and the strongest value is black or white, so that signs are visible.
    signed = np.dstack([0.5 + 0.5 * np.clip(delta / scale, -1, 1), support])
    strength = np.ma.array(np.abs(delta).mean(axis=-1), mask=~support)

    figure = new_figure(8.0, 4.1)
    left, right = figure.subplots(1, 2)
    _picture(left, signed.astype(np.float32))
    note = f"gray is 0, black and white are ±{peak:.3g}" if peak else "gray is 0: nothing is learned yet"
    left.set_title(f"Prompt\n{note}", fontsize=10, color=INK)
    drawn = right.imshow(strength, cmap="viridis", vmin=0.0, vmax=strength.max() or 1.0, interpolation="nearest")
    _bare(right)
    for axes in (left, right):
        # The hatching is visible where the pictures are transparent; plain white would look like full strength.
        axes.patch.set(facecolor="white", edgecolor=FAINT, hatch="////", linewidth=0)
    right.set_title("Strength\nmean |delta| over the channels", fontsize=10, color=INK)
    bar = figure.colorbar(drawn, ax=right, shrink=0.85)
    bar.ax.tick_params(labelsize=9)
    if not support.all():
        figure.supxlabel("hatched: the canvas without a prompt", fontsize=9, color=INK)
    return save(figure, path)


def examples_figure(plain: ArrayLike, prompted: ArrayLike, titles: Sequence[str], path: str | Path) -> Path:
    """Draws images above the same images with the prompt, one column for each image.

    Args:
      plain: float `[n, s, s, 3]` in [0, 1].
      prompted: float `[n, s, s, 3]`; values outside [0, 1] are clipped.
      titles: n short texts, such as class names.
      path: the PNG to write.

    Returns:
      `path`.

    Raises:
      ValueError: the shapes or the number of titles differ, or there is no image.
    """
    plain, prompted = np.asarray(plain, np.float32), np.asarray(prompted, np.float32)
    n = len(plain)
    if plain.ndim != 4 or plain.shape != prompted.shape or len(titles) != n or n == 0:
        raise ValueError(
            "plain and prompted must be [n, s, s, 3] alike, with n titles, "
            f"got {plain.shape}, {prompted.shape} and {len(titles)} titles"
        )
    figure = new_figure(0.5 + 1.3 * n, 3.1)
    grid = figure.subplots(2, n, squeeze=False)
    for column, title in enumerate(titles):
        _picture(grid[0, column], plain[column])
        _picture(grid[1, column], prompted[column])
        text, families = legible(title)
        text = "\n".join(textwrap.wrap(text, 16, max_lines=3, placeholder=" …"))
        grid[0, column].set_title(text, fontsize=9, fontfamily=families, color=INK, parse_math=False)
    for name, axes in zip(("plain", "prompted"), grid[:, 0], strict=True):
        axes.set_ylabel(name, fontsize=10, color=INK)
    return save(figure, path)


def _picture(axes: Axes, pixels: NDArray[np.float32]) -> None:
    axes.imshow(np.clip(pixels, 0.0, 1.0), interpolation="nearest")
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#bbbbbb")
