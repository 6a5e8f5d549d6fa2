"""Shrinking: turns a network with dead channels into a smaller network that computes the same.

A channel is dead if no following layer reads it, or if it is constant and its readers can be changed to compute the
same without it. Both are recognized by zero weights, whether a mask of channels or a mask of single weights made them.
Removing channels can make other channels dead, before and after them. So this is repeated until nothing changes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax import trees
from vpns_jax.errors import UserError
from vpns_jax.models import folding
from vpns_jax.models.coupling import IMAGE_SIZE, channels, has_table
from vpns_jax.models.equality import check_same
from vpns_jax.models.head import HEAD
from vpns_jax.models.own_network import class_name
from vpns_jax.models.widths import freeze
from vpns_jax.models.wiring import Channels


class Shrunk(NamedTuple):
    """A smaller network.

    Attributes:
      model: the module, with its own `widths`.
      variables: its variables.
      kept: the indices of the kept outputs by layer; the first layer stands for all that write to the same sum.
    """

    model: Any
    variables: dict[str, Any]
    kept: dict[str, np.ndarray]


def shrink(
    model: nn.Module,
    variables: Mapping[str, Any],
    *,
    classes: Sequence[int] | None = None,
    round_to: int = 1,
    image_size: int = IMAGE_SIZE,
) -> Shrunk:
    """Removes all dead channels, hidden units and attention heads.

    The logits stay equal, up to rounding, for every image and with running statistics (`train=False`).

    Args:
      model: a network of this package, or any Linen module whose channels can be found and that has a field `widths`:
        the number of outputs of single layers, as `widths.Widths`, which the smaller network gets.
      variables: its variables, in which pruned weights are zero.
      classes: the logits to keep, in this order; None keeps all. The network then needs a field `num_classes`, and its
        last layer is called `head`.
      round_to: widths become multiples of this, if that does not exceed the old width; some dead channels are kept for
        that. At least 1. An attention head has 64 channels.
      image_size: the side of the images; it matters to networks of other packages alone, see `models.channels`.

    Returns:
      The smaller network. Its variables have the dtypes of the given ones.

    Raises:
      UserError: `round_to` is below 1; the network's channels cannot be found, or it has no field `widths`; `classes`
        are given, and it has no field `num_classes` or no layer `head`; or the channels of another package's network
        were not understood: the smaller network cannot be built, or computes other logits for a few random images.
    """
    _check(model, variables, classes, round_to)
    whole, original = channels(model, image_size=image_size), model
    table = [each for each in whole if not each.fixed]
    given = trees.flatten(variables)
    leaves = {path: _writable(leaf) for path, leaf in given.items()}
    if classes is not None:
        for path in (path for path in leaves if path.startswith(f"params/{HEAD}/")):
            leaves[path] = np.ascontiguousarray(leaves[path][..., list(classes)])
        model = model.clone(num_classes=len(classes))
    norms = {each.name: _norms(each, leaves) for each in table}
    _settle(whole, leaves)
    kept = {}
    for each in table:
        # Layers without outputs need care in a module, which others may lack.
        least = least_width(each) if has_table(model) else each.width
        keep = _keep(each, _is_read(each, leaves), norms[each.name], least, round_to)
        kept[each.name.removesuffix("/kernel")] = keep
    names = {layer: each for each, layer in zip(table, kept, strict=True)}
    widths = {layer: keep.size for layer, keep in kept.items() if keep.size < _count(names[layer], leaves)}
    # Channels are cut only now, so that indices stay valid until here.
    _cut([(names[layer], kept[layer]) for layer in widths], leaves)
    model = model.clone(widths=freeze({**dict(model.widths), **widths}))
    narrowed = {path: leaf.astype(given[path].dtype) for path, leaf in leaves.items()}
    # `jnp.asarray` would compile a program for each shape.
    shrunk = Shrunk(model, jax.device_put(trees.unflatten(narrowed)), kept)
    if not has_table(original):
        check_same((original, variables), shrunk[:2], image_size=image_size, classes=classes)
    return shrunk


def _check(model: nn.Module, variables: Mapping[str, Any], classes: Sequence[int] | None, round_to: int) -> None:
    """Checks the arguments of `shrink`."""
    if round_to < 1:
        raise UserError(f"round_to is {round_to}; it must be at least 1")
    for field in ("widths", *(("num_classes",) if classes is not None else ())):
        if not hasattr(model, field):
            raise UserError(
                f"{class_name(model)} cannot be made smaller: its module has no field `{field}`; "
                "docs/models.md says what shrinking needs"
            )
    if classes is not None and HEAD not in variables["params"]:
        raise UserError(
            f"{class_name(model)} has no layer `{HEAD}`, whose rows `classes` names; give its last layer that name, or "
            "leave classes out"
        )


def least_width(channels: Channels) -> int:
    """The smallest possible number of channels. It is zero if a shortcut leads around the layers that write them.

    Args:
      channels: the channels.

    Returns:
      The number of channels.
    """
    layer = channels.name.removesuffix("/kernel")
    return 0 if len(channels.writers) == 1 and "/" in layer else channels.width


def _settle(whole: Sequence[Channels], leaves: folding.Leaves) -> None:
    """Folds constant channels forward, and sets the columns of unread channels to zero, until nothing changes."""
    table = [each for each in whole if not each.fixed]
    ends = {writer.kernel: writer for each in whole for writer in (*each.writers, *each.companions)}
    changed = True
    while changed:
        changed = False
        for each in table:
            changed |= folding.fold(folding.readings(each, leaves), ends, leaves)
        for each in reversed(table):
            unread = np.repeat(~_is_read(each, leaves), each.width)
            for path in each.kernels:
                column = leaves[f"params/{path}"]
                changed |= bool(column[..., unread].any())
                column[..., unread] = 0


def _is_read(each: Channels, leaves: folding.Leaves) -> np.ndarray:
    """Whether any layer has a nonzero weight for each unit (`width` channels that are pruned together), `[units]`."""
    count = _count(each, leaves)
    read = np.any([folding.used(reader, leaves, count) for reader in each.readers], axis=0)
    return read.reshape(-1, each.width).any(axis=1)


def _keep(each: Channels, read: np.ndarray, norms: np.ndarray, least: int, round_to: int) -> np.ndarray:
    """Indices of the channels to keep: those that are read, and the largest of the others to fill up the width."""
    wanted = max(int(read.sum()), least // each.width)
    # Several units fill a multiple, or one unit fills several.
    step = round_to // math.gcd(round_to, each.width)
    wanted = min(-(-wanted // step) * step, read.size)
    order = np.lexsort((-norms, ~read))
    units = np.sort(order[:wanted])
    return (units[:, None] * each.width + np.arange(each.width)).reshape(-1)


def _norms(each: Channels, leaves: folding.Leaves) -> np.ndarray:
    """The squared norm of the weights that write each unit, `[units]`."""
    squares = [np.square(leaves[f"params/{path}"]).reshape(-1, _count(each, leaves)).sum(0) for path in each.kernels]
    return np.sum(squares, axis=0).reshape(-1, each.width).sum(axis=1)


def _cut(kept: Sequence[tuple[Channels, np.ndarray]], leaves: folding.Leaves) -> None:
    """Removes all channels but the kept ones from the layers that write and read them."""
    rows: dict[str, np.ndarray] = {}
    for each, keep in kept:
        gone = np.ones(_count(each, leaves), bool)
        gone[keep] = False
        for reader in each.readers:
            # Several tensors may lie one behind another in what a layer reads, so its rows are cut once, below.
            path = f"params/{reader.kernel}"
            stays = rows.setdefault(path, np.ones(leaves[path].shape[-2], bool))
            stays.reshape(reader.positions, -1)[:, reader.offset : reader.offset + gone.size][:, gone] = False
    for path, stays in rows.items():
        leaves[path] = np.compress(stays, leaves[path], axis=-2)
    for each, keep in kept:
        paths = [f"params/{path}" for path in each.vectors]
        for writer in (*each.companions, *each.writers):
            paths += [f"params/{path}" for path in (writer.kernel, writer.bias) if path]
            if writer.norm:
                paths += [f"params/{writer.norm}/{leaf}" for leaf in ("scale", "bias")]
                paths += [f"batch_stats/{writer.norm}/{leaf}" for leaf in ("mean", "var")]
        for path in paths:
            leaves[path] = np.take(leaves[path], keep, axis=-1)


def _count(each: Channels, leaves: folding.Leaves) -> int:
    return int(leaves[f"params/{each.name}"].shape[-1])


def _writable(leaf: Any) -> np.ndarray:
    """A copy that can be changed. Vectors become float64, so that repeated additions do not accumulate rounding."""
    leaf = np.asarray(leaf)
    wide = leaf.ndim == 1 and jnp.issubdtype(leaf.dtype, jnp.floating)
    return np.array(leaf, np.float64 if wide else leaf.dtype, order="C")
