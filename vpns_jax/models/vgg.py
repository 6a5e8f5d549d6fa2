"""VGG-16 with and without batch norm, as in torchvision (Simonyan & Zisserman 2015, arXiv 1409.1556)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpns_jax.errors import UserError
from vpns_jax.models.cpu.conv import Conv
from vpns_jax.models.cpu.pooling import adaptive_avg_pool, max_pool
from vpns_jax.models.head import Head
from vpns_jax.models.norm import BatchNorm
from vpns_jax.models.widths import Widths, width_of

# The feature map that the dense layers read has this side, whatever the image's size.
POOLED_SIZE = 7


class VGG(nn.Module):
    """A plain stack of 3x3 convolutions in stages, each ended by a 2x2 max-pool, and three dense layers.

    Attributes:
      stages: (number of convolutions, channels) of each stage.
      batch_norm: whether each convolution is followed by batch normalization (it has a bias nevertheless).
      num_classes: s, number of logits.
      width: factor on every channel count and on the dense layers; torchvision's networks have 1.
      dropout: rate after the two hidden dense layers, drawn from the rng "dropout" with `train=True`.
      dtype: computation dtype; parameters and statistics are float32 always.
      widths: the number of outputs of single layers that differs from what `width` gives; see `shrink`.
    """

    stages: tuple[tuple[int, int], ...]
    batch_norm: bool
    num_classes: int = 1000
    width: float = 1.0
    dropout: float = 0.5
    dtype: Any = jnp.float32
    widths: Widths = ()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps normalized images `[b, h, w, 3]`, h and w >= 32, to float32 logits `[b, s]`."""
        _, h, w, _ = images.shape
        least = 2 ** len(self.stages)
        if min(h, w) < least:
            raise UserError(
                f"image size {h}x{w} is too small for a VGG, whose stages halve it to nothing; at least {least}"
            )
        x = images
        for stage, (depth, features) in enumerate(self.stages, start=1):
            for i in range(1, depth + 1):
                name = f"conv{stage}_{i}"
                features_out = width_of(self.widths, name, max(1, round(features * self.width)))
                x = Conv(features_out, 3, 1, 1, use_bias=True, dtype=self.dtype, name=name)(x)
                if self.batch_norm:
                    x = BatchNorm(self.dtype, name=f"bn{stage}_{i}")(x, train=train)
                x = nn.relu(x)
            x = max_pool(x, window=2, stride=2)
        x = adaptive_avg_pool(x, POOLED_SIZE)
        x = x.reshape(x.shape[0], -1)
        for name in ("fc1", "fc2"):
            dense = nn.Dense(
                width_of(self.widths, name, max(1, round(4096 * self.width))),
                dtype=self.dtype,
                kernel_init=nn.initializers.normal(0.01),
                name=name,
            )
            x = nn.relu(dense(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Head(self.num_classes, self.dtype, name="head")(x)
