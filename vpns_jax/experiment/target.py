"""The config's target: what a network may cost once its pruned channels are cut out, as a share of the dense one."""

import dataclasses
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpns_jax import models, sparsity, trees
from vpns_jax.analysis import flops
from vpns_jax.errors import UserError, short

PyTree = Any
COSTS = {"macs": "multiply-adds", "params": "parameters"}


@dataclasses.dataclass(frozen=True)
class Target:
    """A share of what the dense network costs.

    Attributes:
      kind: one of `COSTS`.
      share: in (0, 1).
    """

    kind: str
    share: float


def parse(text: str) -> Target | None:
    """Reads "macs:0.5" or "params:0.5".

    Args:
      text: the config's; "" for no target.

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
    """Lists what each part of a dense network costs, and which channels it reads and writes.

    Args:
      kind: one of `COSTS`.
      model: a network of this package.
      image_size: the side of its input.

    Returns:
      The terms. Biases and normalization have parameters, and no multiply-adds.

    Raises:
      UserError: which channels the network has is not known.
    """
    free = [each for each in models.channels(model) if not each.fixed]
    reads = {reader.kernel: each.name for each in free for reader in each.readers}
    writes = {path: each.name for each in free for path in sparsity.channel_parts(each)}
    costs = _macs(model, image_size) if kind == "macs" else _parameters(model, image_size)
    return tuple(sparsity.Term(reads.get(path, ""), writes.get(path, ""), size) for path, size in costs.items())


def shrunk(model: nn.Module, mask: PyTree, *, image_size: int) -> dict[str, dict[str, int]]:
    """Counts what a network costs, and what it costs once its pruned channels are cut out.

    Args:
      model: a network of this package.
      mask: of whole channels.
      image_size: the side of the network's input.

    Returns:
      Under the `key` of each cost "dense" and "shrunk".
    """
    pattern = sparsity.ChannelPattern(channels=models.channels(model))
    kept = {path: (int(keep.sum()), keep.size) for path, keep in trees.flatten(pattern.kept(mask)).items()}
    costs = {kind: terms(kind, model, image_size=image_size) for kind in COSTS}
    return {
        key(kind): {"dense": sparsity.cost(parts, {}), "shrunk": sparsity.cost(parts, kept)}
        for kind, parts in costs.items()
    }


def key(kind: str) -> str:
    """The name of a cost in results.

    Args:
      kind: one of `COSTS`.

    Returns:
      Such as "multiply_adds".
    """
    return COSTS[kind].replace("-", "_")


def _macs(model: nn.Module, image_size: int) -> dict[str, int]:
    return {each.path: each.positions * each.size for each in flops.kernels(model, image_size=image_size)}


def _parameters(model: nn.Module, image_size: int) -> dict[str, int]:
    images = jnp.zeros((1, image_size, image_size, 3))
    shapes: Any = jax.eval_shape(model.init, jax.random.key(0), images)
    return {path: leaf.size for path, leaf in trees.flatten(shapes["params"]).items()}
