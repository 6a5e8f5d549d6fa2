"""ResNet-18, -34 and -50 (He et al. 2016, arXiv 1512.03385), torchvision's variant.

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


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; `[b, h, w, c]` to `[b, h / stride, w / stride, features]`."""

    features: int
    stride: int
    dtype: Any
    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = Conv(self.features, 3, self.stride, 1, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(BatchNorm(self.dtype, name="bn1")(y, train=train))
        y = Conv(self.features, 3, 1, 1, dtype=self.dtype, name="conv2")(y)
        y = BatchNorm(self.dtype, name="bn2")(y, train=train)
        return nn.relu(y + shortcut(x, self.features, self.stride, self.dtype, train=train))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; `4 * features` channels come out."""

    features: int
    stride: int
    dtype: Any
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        out = self.features * self.expansion
        y = Conv(self.features, 1, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(BatchNorm(self.dtype, name="bn1")(y, train=train))
        y = Conv(self.features, 3, self.stride, 1, dtype=self.dtype, name="conv2")(y)
        y = nn.relu(BatchNorm(self.dtype, name="bn2")(y, train=train))
        y = Conv(out, 1, dtype=self.dtype, name="conv3")(y)
        y = BatchNorm(self.dtype, name="bn3")(y, train=train)
        return nn.relu(y + shortcut(x, out, self.stride, self.dtype, train=train))


def shortcut(x: jax.Array, features: int, stride: int, dtype: Any, *, train: bool) -> jax.Array:
    """The block's input, through a 1x1 convolution where the block changes its shape.

    Called inside a block's `nn.compact`, so its layers belong to that block.
    """
    if stride == 1 and x.shape[-1] == features:
        return x
    x = Conv(features, 1, stride, dtype=dtype, name="downsample_conv")(x)
    return BatchNorm(dtype, name="downsample_bn")(x, train=train)


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
    """

    depths: tuple[int, ...]
    block: Literal["basic", "bottleneck"]
    num_classes: int = 1000
    width: float = 1.0
    stem: Literal["imagenet", "small"] = "imagenet"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps normalised images `[b, h, w, 3]` to logits `[b, s]`, float32."""
        features = max(1, round(64 * self.width))
        if self.stem == "imagenet":
            x = Conv(features, 7, 2, 3, dtype=self.dtype, name="conv1")(images)
            x = nn.relu(BatchNorm(self.dtype, name="bn1")(x, train=train))
            x = max_pool(x, window=3, stride=2, padding=1)
        else:
            x = Conv(features, 3, 1, 1, dtype=self.dtype, name="conv1")(images)
            x = nn.relu(BatchNorm(self.dtype, name="bn1")(x, train=train))
        for stage, depth in enumerate(self.depths):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                block = BLOCKS[self.block](features * 2**stage, stride, self.dtype, name=f"layer{stage + 1}_{i}")
                x = block(x, train=train)
        return Head(self.num_classes, self.dtype, name="head")(jnp.mean(x, axis=(1, 2)))
