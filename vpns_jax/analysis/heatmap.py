"""The figure of the overlap of masks: a heatmap of methods for each sparsity."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpns_jax.analysis.overlap import Comparison
from vpns_jax.analysis.style import INK, new_figure, save
from vpns_jax.analysis.tables import sparsity_name

_MOST_COLUMNS = 3


def overlap_figure(comparisons: Sequence[Comparison], path: str | Path) -> Path:
    """Draws the Jaccard index of every pair of methods, in a panel for each sparsity; the diagonal compares seeds.

    Args:
      comparisons: at least one comparison. Missing pairs stay white.
      path: the PNG to write.

    Returns:
      `path`.
    """
    densities = list(dict.fromkeys(comparison.density for comparison in comparisons))
    methods = list(dict.fromkeys(name for comparison in comparisons for name in comparison.methods))
    columns = min(len(densities), _MOST_COLUMNS)
    lines = math.ceil(len(densities) / columns)
    side = 1.2 + 0.55 * len(methods)
    figure = new_figure(1.4 + side * columns, 0.9 + side * lines)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes, density in zip(panels.flat, densities, strict=False):
        here = [comparison for comparison in comparisons if comparison.density == density]
        square = np.full((len(methods), len(methods)), np.nan)
        for comparison in here:
            i, j = (methods.index(name) for name in comparison.methods)
            square[i, j] = square[j, i] = comparison.overlap.jaccard
        drawn = axes.imshow(square, vmin=0, vmax=1, cmap="cividis")
        for (i, j), value in np.ndenumerate(square):
            if not np.isnan(value):
                ink = INK if value > 0.5 else "white"
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink)
        axes.set_xticks(range(len(methods)), methods, rotation=45, ha="right")
        axes.set_yticks(range(len(methods)), methods)
        axes.tick_params(length=0, labelsize=8, labelcolor=INK)
        axes.spines[:].set_visible(False)
        chance = max(comparison.overlap.chance for comparison in here)
        axes.set_title(f"{sparsity_name(density)} sparsity\nchance {chance:.2f}", fontsize=9, color=INK)
    for axes in panels.flat[len(densities) :]:
        axes.set_visible(False)
    if any(len(set(comparison.methods)) == 1 for comparison in comparisons):
        figure.supxlabel("on the diagonal: the same method, between seeds", fontsize=9, color=INK)
    bar = figure.colorbar(drawn, ax=panels, shrink=0.7, aspect=25)
    bar.set_label("weights both keep / weights either keeps", fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return save(figure, path)
