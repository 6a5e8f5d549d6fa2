"""The target of a config: the allowed cost of a network without its pruned channels, as a share of the dense cost."""

import dataclasses
import re
from typing import Any

import flax.linen as nn

from vpns_jax import models, sparsity, trees
from vpns_jax.analysis import flops
from vpns_jax.errors import UserError, short
from vpns_jax.models import initializing

PyTree = Any
COSTS = {"macs": "multiply-adds", "params": "parameters"}


@dataclasses.dataclass(frozen=True)
class Target:
    """A share of the dense network's cost.

    Attributes:
      kind: a key of `COSTS`.
      share: the share, in (0, 1).
    """

    kind: str
    share: float


def parse(text: str) -> Target | None:
    """Reads "macs:0.5" or "params:0.5".

    Args:
      text: the value in the config; "" for no target.

    Returns:
      The target, or None.

    Raises:
      UserError: it is neither, or the share is outside (0, 1).
    """
    if not text:
        return None
    parts = re.fullmatch(r"(\w+):([0-9.eE+-]+)", text)
    if parts and parts[1] in COSTS:
        try:
            share = float(parts[2])
        except ValueError:
            share = 0.0
        if 0 < share < 1:
            return Target(parts[1], share)
    raise UserError(f"target is {short(text)}; it allows macs:SHARE or params:SHARE, with a share in (0, 1)")


def terms(kind: str, model: nn.Module, *, image_size: int) -> tuple[sparsity.Term, ...]:
    """Lists the cost of each part of a dense network, and the channels that it reads and writes.

    Args:
      kind: a key of `COSTS`.
      model: the network.
      image_size: the side of its input.

    Returns:
      The terms. Biases and normalizations have parameters but no multiply-adds.

    Raises:
      UserError: the channels of the network are not known.
    """
    free = [channel for channel in models.channels(model, image_size=image_size) if not channel.fixed]
    shapes = _shapes(model, image_size)
    writes = {path: channel.name for channel in free for path in sparsity.channel_parts(channel)}
    # How many rows of each kernel read which channels; of several tensors, if these are concatenated.
    reads: dict[str, list[tuple[str, int]]] = {}
    for channel in free:
        for reader in channel.readers:
            rows = reader.positions * shapes[channel.name].shape[-1]
            reads.setdefault(reader.kernel, []).append((channel.name, rows))
    costs = _macs(model, image_size) if kind == "macs" else {path: leaf.size for path, leaf in shapes.items()}
    parts = []
    for path, size in costs.items():
        shares = [(name, size * rows // shapes[path].shape[-2]) for name, rows in reads.get(path, [])]
        rest = size - sum(share for _, share in shares)
        shares += [("", rest)] if rest else []
        parts += [sparsity.Term(name, writes.get(path, ""), share) for name, share in shares]
    return tuple(parts)


def shrunk(model: nn.Module, mask: PyTree, *, image_size: int) -> dict[str, dict[str, int]]:
    """Counts the cost of the dense network, and of the network with its pruned channels cut out.

    Args:
      model: the network.
      mask: a mask of whole channels.
      image_size: the side of the network's input.

    Returns:
      The costs "dense" and "shrunk", by the `key` of each kind.
    """
    pattern = sparsity.ChannelPattern(channels=models.channels(model, image_size=image_size))
    counts = {path: (int(keep.sum()), keep.size) for path, keep in trees.flatten(pattern.kept(mask)).items()}
    costs = {kind: terms(kind, model, image_size=image_size) for kind in COSTS}
    return {
        key(kind): {"dense": sparsity.cost(parts, {}), "shrunk": sparsity.cost(parts, counts)}
        for kind, parts in costs.items()
    }


def key(kind: str) -> str:
    """Names a cost in results.

    Args:
      kind: a key of `COSTS`.

    Returns:
      The name, such as "multiply_adds".
    """
    return COSTS[kind].replace("-", "_")


def _macs(model: nn.Module, image_size: int) -> dict[str, int]:
    return {kernel.path: kernel.positions * kernel.size for kernel in flops.kernels(model, image_size=image_size)}


def _shapes(model: nn.Module, image_size: int) -> dict[str, Any]:
    return trees.flatten(initializing.shapes(model, image_size=image_size)["params"])
