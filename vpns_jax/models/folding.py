"""Folds channels that are constant for all images into the layers that read them.

A channel with a zero kernel still has a value: its bias, after normalization. A reader without padding can add that
constant to its own bias. A convolution with padding cannot, because its padding holds zeros instead of the constant,
nor can a layer without a bias. But there one constant channel can replace all others, with proportional weights.

All functions work in place on leaves by path, "params/..." and "batch_stats/...": kernels are float32, vectors float64.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vpns_jax.models.wiring import Channels, Reader, Writer, keeps_zero

Leaves = dict[str, np.ndarray]


class Reading(NamedTuple):
    """The constant channels that a layer reads.

    Attributes:
      reader: the layer.
      value: float64 `[c]`, each channel's value at every pixel of any image; NaN where it is not constant.
    """

    reader: Reader
    value: np.ndarray


def readings(channels: Channels, leaves: Leaves) -> list[Reading]:
    """Finds the constant channels that each reader sees.

    Args:
      channels: the channels of one tensor, an entry of `models.channels`.
      leaves: the network's leaves.

    Returns:
      A reading for each reader.
    """
    value, written, seen = np.zeros(leaves[f"params/{channels.name}"].shape[-1]), 0, []
    sums = [len(channels.writers) if reader.sums is None else reader.sums for reader in channels.readers]
    for count in sorted(set(sums)):
        emitted = [_emitted(writer, leaves) for writer in channels.writers[written:count]]
        # Of what may lie between writers, such as a depthwise convolution, only zeros are known to pass.
        if channels.activation is keeps_zero and np.any(emitted):
            emitted = [np.where(np.all(np.equal(emitted, 0), axis=0), 0.0, np.nan)]
        value, written = channels.activation(value + sum(emitted)), count
        seen += [Reading(reader, value) for reader, sum_ in zip(channels.readers, sums, strict=True) if sum_ == count]
    return seen


def used(reader: Reader, leaves: Leaves, count: int) -> np.ndarray:
    """Whether a layer has a nonzero weight for each channel.

    Args:
      reader: the layer.
      leaves: the network's leaves.
      count: the number of channels.

    Returns:
      bool `[count]`.
    """
    return np.any(_inputs(reader, leaves, count), axis=(0, 2))


def fold(seen: list[Reading], ends: Mapping[str, Writer], leaves: Leaves) -> bool:
    """Folds constant channels into all layers that read them, and sets their weights for these channels to zero.

    Args:
      seen: the readings of all readers of one tensor.
      ends: each layer by the path of its kernel, with its bias and batch normalization.
      leaves: the network's leaves, changed in place.

    Returns:
      Whether anything was folded.
    """
    padded = [reading.value for reading in seen if not _takes_constants(reading.reader, ends)]
    # The constant channel to keep: the largest one that is constant for all these readers.
    size = np.min(np.abs(np.nan_to_num(padded)), axis=0) if padded else np.zeros(0)
    changed = False
    for reader, value in seen:
        weights = _inputs(reader, leaves, value.size)
        constant = np.isfinite(value) & weights.any(axis=(0, 2))
        silent, nonzero = np.flatnonzero(constant & (value == 0)), np.flatnonzero(constant & (value != 0))
        weights[:, silent] = 0
        changed |= silent.size > 0
        if not nonzero.size:
            continue
        if _takes_constants(reader, ends):
            _shift(ends[reader.kernel], value[nonzero] @ weights[:, nonzero].sum(axis=0, dtype=np.float64), leaves)
        else:
            keep = int(np.argmax(size)) if size.any() else nonzero[np.argmax(np.abs(value[nonzero]))]
            nonzero = nonzero[nonzero != keep]
            share = np.einsum("kco,c->ko", weights[:, nonzero], value[nonzero] / value[keep], dtype=np.float64)
            weights[:, keep] += share.astype(weights.dtype)
        weights[:, nonzero] = 0
        changed |= nonzero.size > 0
    return bool(changed)


def _emitted(writer: Writer, leaves: Leaves) -> np.ndarray:
    """The value that a layer adds to each of its channels, float64 `[c]`; NaN where it depends on the image."""
    kernel = leaves[f"params/{writer.kernel}"]
    bias = leaves[f"params/{writer.bias}"] if writer.bias else 0.0
    value = np.where(kernel.any(axis=tuple(range(kernel.ndim - 1))), np.nan, bias)
    if not writer.norm:
        return value
    scale, shift = (leaves[f"params/{writer.norm}/{leaf}"] for leaf in ("scale", "bias"))
    mean, var = (leaves[f"batch_stats/{writer.norm}/{leaf}"] for leaf in ("mean", "var"))
    # Broken statistics give NaN, which counts as no constant.
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (value - mean) * scale / np.sqrt(var + writer.epsilon) + shift
    # With a scale of zero, any channel is constant.
    return np.where(scale == 0, shift, value)


def _takes_constants(reader: Reader, ends: Mapping[str, Writer]) -> bool:
    """Whether a layer can add a constant of its input to its own bias or normalization."""
    end = ends[reader.kernel]
    return not reader.padded and bool(end.bias or end.norm)


def _shift(end: Writer, amount: np.ndarray, leaves: Leaves) -> None:
    """Adds a constant to a layer's outputs, before its batch normalization if there is one."""
    if end.bias:
        leaves[f"params/{end.bias}"] += amount
    else:
        leaves[f"batch_stats/{end.norm}/mean"] -= amount


def _inputs(reader: Reader, leaves: Leaves, count: int) -> np.ndarray:
    """A view of a kernel as `[taps or positions, channels, outputs]`."""
    kernel = leaves[f"params/{reader.kernel}"]
    rows, outputs = kernel.shape[-2] // reader.positions, kernel.shape[-1]
    view = kernel.reshape(kernel.size // max(rows * outputs, 1), rows, outputs)
    return view[:, reader.offset : reader.offset + count]
