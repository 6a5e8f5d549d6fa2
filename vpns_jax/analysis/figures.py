"""All figures of a report. Each function takes data and a path, writes a PNG there and returns the path."""

from vpns_jax.analysis.curves import curves_figure
from vpns_jax.analysis.layers import layers_figure
from vpns_jax.analysis.matrix import confusion_figure
from vpns_jax.analysis.pictures import examples_figure, prompt_figure
from vpns_jax.analysis.tradeoff import sparsity_figure

__all__ = [
    "confusion_figure",
    "curves_figure",
    "examples_figure",
    "layers_figure",
    "prompt_figure",
    "sparsity_figure",
]
