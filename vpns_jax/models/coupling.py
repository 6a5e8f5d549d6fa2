"""The channels of a network: for each tensor between layers, the layers that write its channels and that read them.

The networks of this package have tables, which are written by hand: they take no time, and their order and names stand
in the files of networks that were shrunk. The channels of all other networks are found by tracing (`tracing`). The
tables are the test of the tracer.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from vpns_jax.errors import UserError
from vpns_jax.models.convnext import ConvNeXt
from vpns_jax.models.deit import DeiT
from vpns_jax.models.head import DISTILLED_HEAD, HEAD
from vpns_jax.models.resnet import BLOCKS, ResNet
from vpns_jax.models.tracing import traced
from vpns_jax.models.vgg import POOLED_SIZE, VGG
from vpns_jax.models.vit import HEAD_DIM, ViT
from vpns_jax.models.wiring import Channels, Reader, Writer, gelu, relu

# The images' side for the trace of a network of another package.
IMAGE_SIZE = 224

# Why no channel of a transformer's or a ConvNeXt's residual stream may be pruned.
_STREAM = "it has the channels of the residual stream, which layer normalization couples across all blocks"


def channels(model: nn.Module, *, image_size: int = IMAGE_SIZE) -> tuple[Channels, ...]:
    """All channels of a network. Each kernel is listed once, as a writer or a companion.

    Args:
      model: the network: of this package, or any Linen module that maps images `[b, h, w, 3]` to logits. Its call may
        take `train`.
      image_size: the side of the images. It decides how many positions a flattened feature map has, if the network is
        none of this package's; otherwise it does not matter.

    Returns:
      The channels.

    Raises:
      UserError: no channel can be pruned, as far as it is known; or the network cannot be traced.
    """
    for family, describe in FAMILIES.items():
        if isinstance(model, family):
            heads = (HEAD, DISTILLED_HEAD) if isinstance(model, DeiT) else (HEAD,)
            logits = Channels(tuple(_dense(path) for path in heads), fixed="its output channels are the classes")
            return (*describe(model), logits)
    try:
        hash(model)
    except TypeError as error:
        raise UserError(
            f"{type(model).__name__} has a field without a hash, such as a list; take a tuple or a function"
        ) from error
    return traced(model, image_size=image_size)


def has_table(model: nn.Module) -> bool:
    """Whether the network's channels stand in a table, and are not found by tracing.

    Args:
      model: the network.
    """
    return isinstance(model, tuple(FAMILIES))


def _convnext(model: ConvNeXt) -> list[Channels]:
    """Hidden units of blocks; the residual stream of each stage is not pruned, nor depthwise kernels, which keep it."""
    inside, streams = [], []
    for stage, depth in enumerate(model.depths, start=1):
        blocks = [f"stage{stage}_{i}" for i in range(depth)]
        first = "stem_conv" if stage == 1 else f"downsample{stage}_conv"
        stream = [first, *(f"{block}/{layer}" for block in blocks for layer in ("depthwise", "fc2"))]
        streams.append(Channels(tuple(_dense(layer) for layer in stream), fixed=_STREAM))
        for block in blocks:
            hidden, reader = (_dense(f"{block}/fc1"),), Reader(f"{block}/fc2/kernel")
            inside.append(Channels(hidden, (reader,), activation=gelu))
    return [*inside, *streams]


def _resnet(model: ResNet) -> list[Channels]:
    """In each stage, all blocks write to one sum, and so does the stem or the shortcut with a convolution."""
    expansion = BLOCKS[model.block].expansion
    basic = model.block == "basic"
    inner = ("conv1",) if basic else ("conv1", "conv2")
    last = f"conv{len(inner) + 1}"
    # All convolutions larger than 1x1 pad.
    padded = {"conv1": basic, "conv2": True, "conv3": False}
    # The sums, and the channels inside of blocks.
    sums: list[tuple[list[Writer], list[Reader]]] = [([_normed("", "conv1")], [])]
    inside: list[Channels] = []
    for stage, depth in enumerate(model.depths):
        for i in range(depth):
            block = f"layer{stage + 1}_{i}/"
            written = len(sums[-1][0])
            sums[-1][1].append(Reader(f"{block}conv1/kernel", padded=padded["conv1"], sums=written))
            if i == 0 and (stage > 0 or expansion > 1):
                sums[-1][1].append(Reader(f"{block}downsample_conv/kernel", sums=written))
                sums.append(([_normed(block, "downsample_conv")], []))
            for before, after in zip(inner, (*inner[1:], last), strict=True):
                reader = Reader(f"{block}{after}/kernel", padded=padded[after])
                inside.append(Channels((_normed(block, before),), (reader,), activation=relu))
            sums[-1][0].append(_normed(block, last))
    sums[-1][1].append(Reader(f"{HEAD}/kernel"))
    return [*(Channels(tuple(writers), tuple(readers), activation=relu) for writers, readers in sums), *inside]


def _vgg(model: VGG) -> list[Channels]:
    """A chain: every layer reads the layer before it; the first dense layer reads the whole pooled feature map."""
    names = [f"{stage}_{i}" for stage, (depth, _) in enumerate(model.stages, start=1) for i in range(1, depth + 1)]
    layers = [
        *(Writer(f"conv{name}/kernel", f"conv{name}/bias", f"bn{name}" if model.batch_norm else "") for name in names),
        *(Writer(f"{name}/kernel", f"{name}/bias") for name in ("fc1", "fc2")),
    ]
    readers = [
        *(Reader(f"conv{name}/kernel", padded=True) for name in names[1:]),
        Reader("fc1/kernel", positions=POOLED_SIZE**2),
        Reader("fc2/kernel"),
        Reader(f"{HEAD}/kernel"),
    ]
    return [Channels((writer,), (reader,), activation=relu) for writer, reader in zip(layers, readers, strict=True)]


def _vit(model: ViT) -> list[Channels]:
    """Attention is pruned by heads, the MLP by hidden units; the residual stream is not pruned.

    The residual stream is one sum from the patch embedding to the head. Masks on kernels cannot remove its channels:
    position embeddings and class token write to it, too, and layer normalization takes mean and variance over all
    channels, pruned or not.
    """
    stream, inside = [_dense("embedding")], []
    for i in range(model.depth):
        attention, mlp = f"block_{i}/attention", f"block_{i}/mlp"
        query, key, value = (_dense(f"{attention}/{name}") for name in ("query", "key", "value"))
        out = Reader(f"{attention}/out/kernel")
        inside.append(Channels((value,), (out,), width=HEAD_DIM, companions=(query, key)))
        inside.append(Channels((_dense(f"{mlp}/fc1"),), (Reader(f"{mlp}/fc2/kernel"),), activation=gelu))
        stream += [_dense(f"{attention}/out"), _dense(f"{mlp}/fc2")]
    return [*inside, Channels(tuple(stream), fixed=_STREAM)]


def _normed(block: str, conv: str) -> Writer:
    """A convolution and the batch normalization after it, which has the same name with "bn" for "conv"."""
    return Writer(f"{block}{conv}/kernel", norm=block + conv.replace("conv", "bn"))


def _dense(path: str) -> Writer:
    return Writer(f"{path}/kernel", f"{path}/bias")


FAMILIES: dict[type[nn.Module], Callable[[Any], list[Channels]]] = {
    ConvNeXt: _convnext,
    ResNet: _resnet,
    VGG: _vgg,
    ViT: _vit,
}
