"""ResNet-18, -34 and -50 (He et al. 2016, arXiv 1512.03385), torchvision's variant, and ResNet-10, a block a stage.

torchvision's 50-layer network strides in the 3x3 convolution of a bottleneck, not in its first 1x1
("ResNet v1.5"), and pads every convolution by half its kernel on all sides.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpns_jax.models.cpu.conv import Conv
from vpns_jax.models.cpu.pooling import max_pool
from vpns_jax.models.head import Head
from vpns_jax.models.norm import BatchNorm
from vpns_jax.models.widths import Widths, width_of


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; `[b, h, w, c]` to `[b, h / stride, w / stride, widths[-1]]`.

    Attributes:
      widths: the number of outputs of each convolution.
      stride: the stride of the first convolution and of the shortcut.
      project: whether the shortcut is a convolution, which is needed if the block changes its input's shape.
      dtype: computation dtype.
    """

    widths: tuple[int, ...]
    stride: int
    project: bool
    dtype: Any
    expansion = 1
    convolutions = 2

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[b, h, w, c]` to `[b, h / stride, w / stride, widths[-1]]`."""
        y = Conv(self.widths[0], 3, self.stride, 1, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(BatchNorm(self.dtype, name="bn1")(y, train=train))
        y = Conv(self.widths[1], 3, 1, 1, dtype=self.dtype, name="conv2")(y)
        y = BatchNorm(self.dtype, name="bn2")(y, train=train)
        return nn.relu(y + shortcut(self, x, train=train))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the last one has four times the channels. See `BasicBlock`."""

    widths: tuple[int, ...]
    stride: int
    project: bool
    dtype: Any
    expansion = 4
    convolutions = 3

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[b, h, w, c]` to `[b, h / stride, w / stride, widths[-1]]`."""
        y = Conv(self.widths[0], 1, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(BatchNorm(self.dtype, name="bn1")(y, train=train))
        y = Conv(self.widths[1], 3, self.stride, 1, dtype=self.dtype, name="conv2")(y)
        y = nn.relu(BatchNorm(self.dtype, name="bn2")(y, train=train))
        y = Conv(self.widths[2], 1, dtype=self.dtype, name="conv3")(y)
        y = BatchNorm(self.dtype, name="bn3")(y, train=train)
        return nn.relu(y + shortcut(self, x, train=train))


def shortcut(block: BasicBlock | Bottleneck, x: jax.Array, *, train: bool) -> jax.Array:
    """The block's input, after a 1x1 convolution if the block changes its shape.

    This is called inside the block's `nn.compact`, so its layers belong to the block.

    Args:
      block: the block.
      x: the block's input `[b, h, w, c]`.
      train: see `BatchNorm`.

    Returns:
      An array of the block's output shape.
    """
    if not block.project:
        return x
    x = Conv(block.widths[-1], 1, block.stride, dtype=block.dtype, name="downsample_conv")(x)
    return BatchNorm(block.dtype, name="downsample_bn")(x, train=train)


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(nn.Module):
    """A residual network.

    Attributes:
      depths: blocks in each of the four stages.
      block: "basic" or "bottleneck".
      num_classes: s, number of logits.
      width: factor on every channel count; torchvision's networks have 1.
      stem: "imagenet" is a 7x7 convolution with stride 2 and a max-pool; "small" is a 3x3 convolution with
        stride 1 and no pooling, for images of some 32 px.
      dtype: computation dtype; parameters and statistics are float32 always.
      widths: the number of outputs of single layers that differs from what `width` gives; see `shrink`. All layers that
        write to one sum have that of the first one: "conv1", or a stage's "downsample_conv".
    """

    depths: tuple[int, ...]
    block: Literal["basic", "bottleneck"]
    num_classes: int = 1000
    width: float = 1.0
    stem: Literal["imagenet", "small"] = "imagenet"
    dtype: Any = jnp.float32
    widths: Widths = ()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps normalized images `[b, h, w, 3]` to float32 logits `[b, s]`."""
        features = max(1, round(64 * self.width))
        block_type = BLOCKS[self.block]
        in_sum = width_of(self.widths, "conv1", features)
        if self.stem == "imagenet":
            x = Conv(in_sum, 7, 2, 3, dtype=self.dtype, name="conv1")(images)
            x = nn.relu(BatchNorm(self.dtype, name="bn1")(x, train=train))
            x = max_pool(x, window=3, stride=2, padding=1)
        else:
            x = Conv(in_sum, 3, 1, 1, dtype=self.dtype, name="conv1")(images)
            x = nn.relu(BatchNorm(self.dtype, name="bn1")(x, train=train))
        for stage, depth in enumerate(self.depths):
            for i in range(depth):
                name, inner = f"layer{stage + 1}_{i}", features * 2**stage
                project = i == 0 and (stage > 0 or block_type.expansion > 1)
                if project:
                    in_sum = width_of(self.widths, f"{name}/downsample_conv", inner * block_type.expansion)
                names = [f"{name}/conv{n}" for n in range(1, block_type.convolutions)]
                widths = (*(width_of(self.widths, conv, inner) for conv in names), in_sum)
                x = block_type(widths, 2 if stage > 0 and i == 0 else 1, project, self.dtype, name=name)(x, train=train)
        return Head(self.num_classes, self.dtype, name="head")(jnp.mean(x, axis=(1, 2)))
