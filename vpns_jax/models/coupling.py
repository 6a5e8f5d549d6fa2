"""The channels of a network: for each tensor between layers, the layers that write its channels and that read them.

Where a residual connection adds the outputs of two layers, channel i of the sum is zero only if channel i of both
outputs is. So all layers that write to the same sum are writers of the same channels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from scipy.special import ndtr

from vpns_jax.errors import UserError
from vpns_jax.models.head import HEAD
from vpns_jax.models.resnet import BLOCKS, ResNet
from vpns_jax.models.vgg import POOLED_SIZE, VGG
from vpns_jax.models.vit import HEAD_DIM, ViT

Activation = Callable[[np.ndarray], np.ndarray]


def identity(x: np.ndarray) -> np.ndarray:
    """The activation of channels that readers see as writers leave them."""
    return x


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(x, 0)


def gelu(x: np.ndarray) -> np.ndarray:
    """The exact GELU, x * Phi(x)."""
    return x * ndtr(x)


class Writer(NamedTuple):
    """A layer whose outputs are the channels. Paths are "/"-joined and relative to `params`.

    Attributes:
      kernel: path of the kernel `[..., c]`; the channels are its last axis.
      bias: path of the layer's bias `[c]`; "" if it has none.
      norm: path of the batch normalization that directly follows, with `scale` and `bias` `[c]`, and with statistics
        under the same path; "" if there is none. A channel is zero if its scale and bias here are zero; without batch
        normalization, if its column of the kernel and its bias are zero.
    """

    kernel: str
    bias: str = ""
    norm: str = ""


class Reader(NamedTuple):
    """A layer whose inputs are the channels.

    Attributes:
      kernel: path of the kernel `[..., c, o]`; the channels are its last axis but one.
      positions: how many times that axis repeats all channels; above 1 for a feature map that was flattened.
      padded: whether it is a convolution that pads its input with zeros.
      sums: how many writers, from the first on, add to what it reads; None for all.
    """

    kernel: str
    positions: int = 1
    padded: bool = False
    sums: int | None = None


class Channels(NamedTuple):
    """The channels of one tensor between layers. A channel is pruned for all its writers and readers, or for none.

    A channel that all its writers leave zero is zero for its readers, too, for any input: between writers and readers
    there are only sums, an activation that keeps zero, pooling, attention's weighted means and dropout. So the channel
    can be removed from writers and readers. All but sums and activation keep a constant channel as it is.

    Attributes:
      writers: the layers that write the channels; if there are several, their outputs are added in this order.
      readers: the layers that read the channels; none are listed where no channel may be pruned.
      width: how many consecutive channels are pruned together, such as those of an attention head.
      companions: layers whose outputs are useless without these channels, although they do not write to them: queries
        and keys are companions of a head's values. They have as many outputs as there are channels.
      fixed: why no channel may be pruned; "" if channels may be pruned.
      activation: the function between writers and readers; in a residual sum, it follows each point that is read.
    """

    writers: tuple[Writer, ...]
    readers: tuple[Reader, ...] = ()
    width: int = 1
    companions: tuple[Writer, ...] = ()
    fixed: str = ""
    activation: Activation = identity

    @property
    def name(self) -> str:
        """The path of the first writer's kernel, which is unique among all channels of a network."""
        return self.writers[0].kernel

    @property
    def kernels(self) -> tuple[str, ...]:
        """Paths of all kernels that lose a column when a channel is pruned, those of writers first."""
        return tuple(writer.kernel for writer in (*self.writers, *self.companions))


def channels(model: nn.Module) -> tuple[Channels, ...]:
    """All channels of a network of this package. Each kernel is listed once, as a writer or a companion.

    Args:
      model: the network.

    Returns:
      The channels.

    Raises:
      UserError: the network's class is not known here.
    """
    for family, describe in FAMILIES.items():
        if isinstance(model, family):
            head = Channels((Writer(f"{HEAD}/kernel", f"{HEAD}/bias"),), fixed="its output channels are the classes")
            return (*describe(model), head)
    known = ", ".join(sorted(family.__name__ for family in FAMILIES))
    raise UserError(
        f"the layers that write and read the channels of {type(model).__name__} are unknown; known: {known}"
    )


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
    reason = "it writes to the residual stream, which embeddings and layer normalization couple across all blocks"
    return [*inside, Channels(tuple(stream), fixed=reason)]


def _normed(block: str, conv: str) -> Writer:
    """A convolution and the batch normalization after it, which has the same name with "bn" for "conv"."""
    return Writer(f"{block}{conv}/kernel", norm=block + conv.replace("conv", "bn"))


def _dense(path: str) -> Writer:
    return Writer(f"{path}/kernel", f"{path}/bias")


FAMILIES: dict[type[nn.Module], Callable[[Any], list[Channels]]] = {ResNet: _resnet, VGG: _vgg, ViT: _vit}
