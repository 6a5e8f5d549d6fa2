"""Which output channels of a network are one, because what they write to is one.

Where a residual connection adds two layers' outputs, channel i of the sum is gone only if channel i of both is: all
layers that write to the same sum share the masks of their output channels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn

from vpns_jax.errors import UserError
from vpns_jax.models.head import HEAD
from vpns_jax.models.resnet import BLOCKS, ResNet
from vpns_jax.models.vgg import VGG
from vpns_jax.models.vit import HEAD_DIM, ViT


class Coupled(NamedTuple):
    """Kernels whose output channels are pruned together, or not at all.

    Attributes:
      paths: "/"-joined, of the kernels.
      width: so many channels in a row go together.
      fixed: why no output channel of these may be pruned; "" if they may.
    """

    paths: tuple[str, ...]
    width: int = 1
    fixed: str = ""


def coupled(model: nn.Module) -> tuple[Coupled, ...]:
    """All couplings of a network of this package; kernels that none names are free, channel by channel.

    Raises:
      UserError: for a module whose couplings are not known here.
    """
    for family, describe in FAMILIES.items():
        if isinstance(model, family):
            return (*describe(model), Coupled((f"{HEAD}/kernel",), fixed="its output channels are the classes"))
    known = ", ".join(family.__name__ for family in FAMILIES)
    raise UserError(f"which channels of {type(model).__name__} are coupled is not known; known: {known}")


def _resnet(model: ResNet) -> list[Coupled]:
    """In each stage all blocks write to one sum, and a stem or shortcut that is no identity with them."""
    expansion = BLOCKS[model.block].expansion
    last = "conv2" if model.block == "basic" else "conv3"
    sums = [["conv1/kernel"]]
    for stage, depth in enumerate(model.depths):
        for i in range(depth):
            block = f"layer{stage + 1}_{i}"
            if i == 0 and (stage > 0 or expansion > 1):
                sums.append([f"{block}/downsample_conv/kernel"])
            sums[-1].append(f"{block}/{last}/kernel")
    return [Coupled(tuple(paths)) for paths in sums if len(paths) > 1]


def _vgg(model: VGG) -> list[Coupled]:
    return []


def _vit(model: ViT) -> list[Coupled]:
    """Attention is pruned by heads, the MLP by hidden units (fc1, free); the residual stream is not.

    A head without its queries, keys and values adds a constant. The residual stream is one sum from the patch
    embedding to the head, and cannot be cut by masks on kernels: position embeddings and class token write to it,
    too, and layer normalisation takes its mean and variance over all channels, pruned or not.
    """
    blocks = [f"block_{i}" for i in range(model.depth)]
    heads = [
        Coupled(tuple(f"{block}/attention/{name}/kernel" for name in ("query", "key", "value")), width=HEAD_DIM)
        for block in blocks
    ]
    writers = [f"{block}/{name}/kernel" for block in blocks for name in ("attention/out", "mlp/fc2")]
    reason = "it writes to the residual stream, which embeddings and layer normalisation couple across all blocks"
    return [*heads, Coupled(("embedding/kernel", *writers), fixed=reason)]


FAMILIES: dict[type[nn.Module], Callable[[Any], list[Coupled]]] = {ResNet: _resnet, VGG: _vgg, ViT: _vit}
