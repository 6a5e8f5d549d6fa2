"""Folds channels that are constant for all images into the layers that read them.

A channel with a zero kernel still has a value: its bias, after normalization. A reader without padding can add that
constant to its own bias. A convolution with padding cannot, because its padding holds zeros instead of the constant.
But there one constant channel can replace all other constant channels, with proportional weights.

All functions work in place on leaves by path, "params/..." and "batch_stats/...": kernels are float32, vectors float64.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import numpy as np
from scipy.special import ndtr

from vpns_jax.models.coupling import Channels, Reader, Writer
from vpns_jax.models.norm import EPSILON
from vpns_jax.models.vit import ViT

Leaves = dict[str, np.ndarray]
Activation = Callable[[np.ndarray], np.ndarray]


class Reading(NamedTuple):
    """The constant channels that a layer reads.

    Attributes:
      reader: the layer.
      value: float64 `[c]`, each channel's value at every pixel of any image; NaN where it is not constant.
    """

    reader: Reader
    value: np.ndarray


def readings(model: nn.Module, channels: Channels, leaves: Leaves) -> list[Reading]:
    """Finds the constant channels that each reader sees.

    Args:
      model: the network.
      channels: the channels of one tensor, an entry of `models.channels`.
      leaves: the network's leaves.

    Returns:
      A reading for each reader.
    """
    activation = _activation(model, channels)
    if len(channels.writers) == 1:
        value = activation(_emitted(channels.writers[0], leaves))
        return [Reading(reader, value) for reader in channels.readers]
    # A residual sum: each block first reads it, and then adds to it.
    value, seen = np.zeros(leaves[f"params/{channels.name}"].shape[-1]), []
    paths = (*(writer.kernel for writer in channels.writers), *(reader.kernel for reader in channels.readers))
    for block in sorted({_block(path) for path in paths}):
        seen += [Reading(reader, value) for reader in channels.readers if _block(reader.kernel) == block]
        written = [_emitted(writer, leaves) for writer in channels.writers if _block(writer.kernel) == block]
        value = activation(value + sum(written)) if written else value
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
    padded = [reading.value for reading in seen if _is_padded(reading.reader, leaves)]
    # The constant channel to keep: the largest one that is constant for all padded readers.
    size = np.min(np.abs(np.nan_to_num(padded)), axis=0) if padded else np.zeros(0)
    changed = False
    for reader, value in seen:
        weights = _inputs(reader, leaves, value.size)
        constant = np.isfinite(value) & weights.any(axis=(0, 2))
        silent, told = np.flatnonzero(constant & (value == 0)), np.flatnonzero(constant & (value != 0))
        weights[:, silent] = 0
        changed |= silent.size > 0
        if not told.size:
            continue
        if not _is_padded(reader, leaves):
            _shift(ends[reader.kernel], value[told] @ weights[:, told].sum(axis=0, dtype=np.float64), leaves)
        else:
            keep = int(np.argmax(size)) if size.any() else told[np.argmax(np.abs(value[told]))]
            told = told[told != keep]
            share = np.einsum("kco,c->ko", weights[:, told], value[told] / value[keep], dtype=np.float64)
            weights[:, keep] += share.astype(weights.dtype)
        weights[:, told] = 0
        changed |= told.size > 0
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
        value = (value - mean) * scale / np.sqrt(var + EPSILON) + shift
    # With a scale of zero, any channel is constant.
    return np.where(scale == 0, shift, value)


def _shift(end: Writer, amount: np.ndarray, leaves: Leaves) -> None:
    """Adds a constant to a layer's outputs, before its batch normalization if there is one."""
    if end.bias:
        leaves[f"params/{end.bias}"] += amount
    else:
        leaves[f"batch_stats/{end.norm}/mean"] -= amount


def _inputs(reader: Reader, leaves: Leaves, count: int) -> np.ndarray:
    """A view of a kernel as `[taps or positions, channels, outputs]`."""
    kernel = leaves[f"params/{reader.kernel}"]
    return kernel.reshape(kernel.size // max(count * kernel.shape[-1], 1), count, kernel.shape[-1])


def _is_padded(reader: Reader, leaves: Leaves) -> bool:
    """Whether a layer pads its input with zeros: in all families of this package, every convolution larger than 1x1."""
    kernel = leaves[f"params/{reader.kernel}"]
    return kernel.ndim == 4 and kernel.shape[0] > 1


def _activation(model: nn.Module, channels: Channels) -> Activation:
    """The function between writers and readers, applied to constants, which pooling and attention do not change.

    It is the exact GELU for ViTs and ReLU for all other families.
    """
    if channels.companions:
        return lambda x: x
    return (lambda x: x * ndtr(x)) if isinstance(model, ViT) else (lambda x: np.maximum(x, 0))


def _block(path: str) -> tuple[float, int]:
    """The place of a layer by its name: (stage, number) of a ResNet's block. "conv1" is first; all others come last."""
    module = path.partition("/")[0]
    if module.startswith("layer"):
        stage, number = module.removeprefix("layer").split("_")
        return float(stage), int(number)
    return (0.0, 0) if module == "conv1" else (np.inf, 0)
