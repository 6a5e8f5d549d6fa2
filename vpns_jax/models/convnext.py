"""ConvNeXt (Liu et al. 2022, arXiv 2201.03545), the variant of timm and torchvision.

It has layer normalization with epsilon 1e-6 and exact GELU. Stochastic depth, which its authors trained with, is left
out.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpns_jax.errors import UserError
from vpns_jax.models.cpu.conv import Conv
from vpns_jax.models.cpu.depthwise import DepthwiseConv
from vpns_jax.models.head import Head
from vpns_jax.models.norm import layer_norm
from vpns_jax.models.widths import Widths, unless_empty, width_of

kernel_init = unless_empty(nn.initializers.normal(0.02))


class Block(nn.Module):
    """A depthwise convolution and two dense layers, scaled and added to their input; `[b, h, w, c]` to `[b, h, w, c]`.

    Attributes:
      dtype: computation dtype.
      width: the number of hidden units between the dense layers.
    """

    dtype: Any
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[b, h, w, c]` to `[b, h, w, c]`."""
        c = x.shape[-1]
        y = DepthwiseConv(7, 3, dtype=self.dtype, name="depthwise")(x)
        y = layer_norm("norm", self.dtype)(y)
        y = nn.Dense(self.width, dtype=self.dtype, kernel_init=kernel_init, name="fc1")(y)
        y = nn.gelu(y, approximate=False)
        y = nn.Dense(c, dtype=self.dtype, kernel_init=kernel_init, name="fc2")(y)
        # With the authors' start of 1e-6, each block is the identity at first.
        gamma = self.param("gamma", nn.initializers.constant(1e-6), (c,), jnp.float32)
        return x + gamma.astype(self.dtype)[None, None, None, :] * y


class ConvNeXt(nn.Module):
    """A ConvNeXt: a stem of 4x4 patches, and stages of blocks, before each of which but the first the image is halved.

    Attributes:
      depths: blocks in each stage.
      num_classes: s, number of logits.
      width: factor on every channel count; the published ConvNeXt-Tiny has 1.
      dtype: computation dtype; parameters are float32 always.
      widths: the number of hidden units of single blocks, such as "stage1_0/fc1", that differs from what `width` gives;
        see `shrink`.
    """

    depths: tuple[int, ...]
    num_classes: int = 1000
    width: float = 1.0
    dtype: Any = jnp.float32
    widths: Widths = ()

    @property
    def features(self) -> tuple[int, ...]:
        """The channels of each stage."""
        return tuple(max(1, round(96 * self.width)) * 2**stage for stage in range(len(self.depths)))

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps normalized images `[b, h, w, 3]`, h and w >= 32, to float32 logits `[b, s]`."""
        del train  # The network computes the same in training.
        _, h, w, _ = images.shape
        least = 4 * 2 ** (len(self.depths) - 1)
        if min(h, w) < least:
            raise UserError(
                f"image size {h}x{w} is too small for a ConvNeXt, whose stages halve it to nothing; at least {least}"
            )

        def reduce(x: jax.Array, c: int, side: int, name: str) -> jax.Array:
            layer = Conv(c, side, side, use_bias=True, dtype=self.dtype, kernel_init=kernel_init, name=name)
            return layer(x)

        x = layer_norm("stem_norm", self.dtype)(reduce(images, self.features[0], 4, "stem_conv"))
        for stage, (depth, c) in enumerate(zip(self.depths, self.features, strict=True), start=1):
            if stage > 1:
                x = layer_norm(f"downsample{stage}_norm", self.dtype)(x)
                x = reduce(x, c, 2, f"downsample{stage}_conv")
            for i in range(depth):
                name = f"stage{stage}_{i}"
                x = Block(self.dtype, width_of(self.widths, f"{name}/fc1", 4 * c), name=name)(x)
        x = layer_norm("norm", self.dtype)(jnp.mean(x, axis=(1, 2)))
        return Head(self.num_classes, self.dtype, name="head")(x)
