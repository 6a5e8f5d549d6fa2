"""Data sets, their host pipeline, and augmentation on the device (docs/data.md)."""

from vpns_jax.data.dataset import Dataset, Split, TrainSplit
from vpns_jax.data.registry import check, load, names, open_sources
from vpns_jax.data.source import Source, Sources

__all__ = ["Dataset", "Source", "Sources", "Split", "TrainSplit", "check", "load", "names", "open_sources"]
