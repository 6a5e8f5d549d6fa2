"""Finished networks: files that describe what they hold, and predictions, smaller networks and exports from them."""

from vpns_jax.deploy.classifier import Classifier, Predictions
from vpns_jax.deploy.description import Description
from vpns_jax.deploy.exports import Exported, export
from vpns_jax.deploy.loading import load, save
from vpns_jax.deploy.reading import Answer, classify_files
from vpns_jax.deploy.shrinking import Size, shrink, size_of

__all__ = [
    "Answer",
    "Classifier",
    "Description",
    "Exported",
    "Predictions",
    "Size",
    "classify_files",
    "export",
    "load",
    "save",
    "shrink",
    "size_of",
]
