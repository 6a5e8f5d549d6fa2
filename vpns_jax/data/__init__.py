"""Data sets, the host pipeline, and augmentation on the device (docs/data.md)."""

from vpns_jax.data.dataset import Dataset, Split, TrainSplit, large_size
from vpns_jax.data.decoding import DecodeOptions, Decoding
from vpns_jax.data.materialize import BUDGET_BYTES, materialize, resident_bytes
from vpns_jax.data.registry import check, identity, load, names, open_sources
from vpns_jax.data.source import Source, Sources
from vpns_jax.data.stream import Stream, eval_stream, train_stream
from vpns_jax.data.text import printable

__all__ = [
    "BUDGET_BYTES",
    "Dataset",
    "DecodeOptions",
    "Decoding",
    "Source",
    "Sources",
    "Split",
    "Stream",
    "TrainSplit",
    "check",
    "eval_stream",
    "identity",
    "large_size",
    "load",
    "materialize",
    "names",
    "open_sources",
    "printable",
    "resident_bytes",
    "train_stream",
]
