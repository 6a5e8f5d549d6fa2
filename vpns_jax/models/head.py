"""The classifier at the end of every network; its module is called `HEAD` in all of them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

HEAD = "head"

# Uniform in +-1/sqrt(fan_in), torch's default for linear layers.
linear_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Head(nn.Module):
    """A linear layer: parameters `kernel` `[c, num_classes]` and `bias` `[num_classes]`, float32."""

    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps features `[b, c]` to float32 logits `[b, num_classes]`; the matrix product is computed in `dtype`."""
        shape = (x.shape[-1], self.num_classes)
        kernel = self.param("kernel", linear_uniform, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,), jnp.float32)
        logits = x.astype(self.dtype) @ kernel.astype(self.dtype)
        return logits.astype(jnp.float32) + bias[None, :]
