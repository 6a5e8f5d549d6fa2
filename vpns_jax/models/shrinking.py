"""Shrinking: from a network with dead channels to a smaller one that computes the same.

A channel is dead if nothing that follows reads it, or if it is constant and what reads it can do without. Zeros say so,
however they came about: by a mask of channels, or by one of single weights that left none. What is removed can leave
other channels dead, before and behind it, so this goes on until nothing changes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vpns_jax import trees
from vpns_jax.models import folding
from vpns_jax.models.coupling import Channels, channels
from vpns_jax.models.head import HEAD
from vpns_jax.models.widths import freeze


class Shrunk(NamedTuple):
    """A smaller network.

    Attributes:
      model: the module, with `widths` of its own.
      variables: its variables.
      kept: by layer, the indices of the outputs that are left; layers that write to one sum by the first of them.
    """

    model: Any
    variables: dict[str, Any]
    kept: dict[str, np.ndarray]


def shrink(
    model: nn.Module, variables: Mapping[str, Any], *, classes: Sequence[int] | None = None, round_to: int = 1
) -> Shrunk:
    """Removes all channels, hidden units and attention heads that are dead.

    Logits are equal up to rounding, for every image, with running statistics (`train=False`).

    Args:
      model: of this package.
      variables: of `model`; pruned weights are zero.
      classes: the logits to keep, in this order; None for all.
      round_to: keep so many of the dead that widths are multiples of this (of heads: their number), or as before.

    Returns:
      The smaller network.

    Raises:
      UserError: the module's channels are not known.
    """
    table = [each for each in channels(model) if not each.fixed]
    leaves = {path: _writable(leaf) for path, leaf in trees.flatten(variables).items()}
    if classes is not None:
        for path in (f"params/{HEAD}/kernel", f"params/{HEAD}/bias"):
            leaves[path] = np.ascontiguousarray(leaves[path][..., list(classes)])
        model = model.clone(num_classes=len(classes))
    norms = {each.name: _norms(each, leaves) for each in table}
    _settle(model, table, leaves)
    kept = {}
    for each in table:
        keep = _keep(each, _is_read(each, leaves), norms[each.name], round_to)
        kept[each.name.removesuffix("/kernel")] = keep
    # Only now, so that indices stay what they are while anything is looked at.
    widths = {}
    for each, (layer, keep) in zip(table, kept.items(), strict=True):
        if keep.size < _count(each, leaves):
            widths[layer] = keep.size
            _cut(each, keep, leaves)
    model = model.clone(widths=freeze({**dict(model.widths), **widths}))
    narrowed = {path: jnp.asarray(leaf, _dtype(path)) for path, leaf in leaves.items()}
    return Shrunk(model, trees.unflatten(narrowed), kept)


def least_width(channels: Channels) -> int:
    """How many outputs layers must have: none at all where a shortcut leads around them.

    Args:
      channels: what they write.

    Returns:
      A number of channels.
    """
    layer = channels.name.removesuffix("/kernel")
    return 0 if len(channels.writers) == 1 and "/" in layer else channels.width


def _settle(model: nn.Module, table: list[Channels], leaves: folding.Leaves) -> None:
    """Folds constants forward, and sets to zero what nothing reads backward, until nothing changes."""
    ends = {writer.kernel: writer for each in channels(model) for writer in each.writers}
    changed = True
    while changed:
        changed = False
        for each in table:
            changed |= folding.fold(folding.readings(model, each, leaves), ends, leaves)
        for each in reversed(table):
            unread = np.repeat(~_is_read(each, leaves), each.width)
            for path in each.kernels:
                column = leaves[f"params/{path}"]
                changed |= bool(column[..., unread].any())
                column[..., unread] = 0


def _is_read(each: Channels, leaves: folding.Leaves) -> np.ndarray:
    """bool [units]: which channels, or groups of them that go together, any layer has a weight for."""
    count = _count(each, leaves)
    read = np.any([folding.used(reader, leaves, count) for reader in each.readers], axis=0)
    return read.reshape(-1, each.width).any(axis=1)


def _keep(each: Channels, read: np.ndarray, norms: np.ndarray, round_to: int) -> np.ndarray:
    """Indices of the channels to keep: those that are read, and the best of the others as far as widths ask for it."""
    wanted = max(int(read.sum()), least_width(each) // each.width)
    wanted = min(-(-wanted // round_to) * round_to, read.size)
    order = np.lexsort((-norms, ~read))
    units = np.sort(order[:wanted])
    return (units[:, None] * each.width + np.arange(each.width)).reshape(-1)


def _norms(each: Channels, leaves: folding.Leaves) -> np.ndarray:
    """float [units]: how large the weights are that write a channel."""
    squares = [np.square(leaves[f"params/{path}"]).reshape(-1, _count(each, leaves)).sum(0) for path in each.kernels]
    return np.sum(squares, axis=0).reshape(-1, each.width).sum(axis=1)


def _cut(each: Channels, keep: np.ndarray, leaves: folding.Leaves) -> None:
    """Takes all other channels out of what writes and reads them."""
    count = _count(each, leaves)
    for reader in each.readers:
        path = f"params/{reader.kernel}"
        rows = (np.arange(reader.positions)[:, None] * count + keep).reshape(-1)
        leaves[path] = np.take(leaves[path], rows, axis=-2)
    for writer in (*each.companions, *each.writers):
        paths = [f"params/{path}" for path in (writer.kernel, writer.bias) if path]
        if writer.norm:
            paths += [f"params/{writer.norm}/{leaf}" for leaf in ("scale", "bias")]
            paths += [f"batch_stats/{writer.norm}/{leaf}" for leaf in ("mean", "var")]
        for path in paths:
            leaves[path] = np.take(leaves[path], keep, axis=-1)


def _count(each: Channels, leaves: folding.Leaves) -> int:
    return int(leaves[f"params/{each.name}"].shape[-1])


def _writable(leaf: Any) -> np.ndarray:
    """A copy to work on: vectors are added to, and should not round each time."""
    leaf = np.asarray(leaf)
    wide = leaf.ndim == 1 and leaf.dtype == np.float32
    return np.array(leaf, np.float64 if wide else leaf.dtype, order="C")


def _dtype(path: str) -> Any:
    return jnp.int32 if path.endswith("/count") else jnp.float32
