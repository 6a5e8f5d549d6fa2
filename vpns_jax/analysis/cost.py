"""The figure of accuracy against cost: test accuracy over passes through the network, and over seconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpns_jax.analysis.style import dress, hundredfold, looks, new_figure, save
from vpns_jax.analysis.summary import methods, rows
from vpns_jax.analysis.tables import sparsity_name


def cost_figure(summary: Mapping[str, Any], path: str | Path, *, density: float) -> Path:
    """Draws each method at one density, as means over seeds. Cheaper is to the left, more accurate is higher.

    Args:
      summary: the contents of summary.json.
      path: the PNG to write.
      density: a density in the summary.

    Returns:
      `path`.
    """
    figure = new_figure(9.0, 4.2)
    table = [row for row in rows(summary) if row.density == density]
    styles = looks(methods(summary))
    for axes, (key, label) in zip(
        figure.subplots(1, 2, sharey=True),
        (("forward_passes", "forward and backward passes"), ("seconds", "seconds, without compilation")),
        strict=True,
    ):
        for row in table:
            color, marker = styles[row.method]
            spent, accuracy = row.total(key), row.headline("test", "best")
            if spent.mean is not None:
                axes.errorbar(
                    [spent.mean],
                    [hundredfold(accuracy.mean)],
                    yerr=[hundredfold(accuracy.std)],
                    color=color,
                    marker=marker,
                    linestyle="none",
                    capsize=3,
                    label=row.method,
                )
        axes.set_xlabel(label, fontsize=10)
        axes.set_xlim(left=0)
        dress(axes, grid="y")
    figure.axes[0].set_ylabel(f"test accuracy at {sparsity_name(density)} sparsity (%)", fontsize=10)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=9)
    return save(figure, path)
