"""The classifier at the end of every network; its module is called `HEAD` in all of them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

HEAD = "head"
# The second head, inside of the first one, of a network that was distilled.
DISTILLED_HEAD = f"{HEAD}/dist"

# Uniform in +-1/sqrt(fan_in), torch's default for linear layers.
linear_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Head(nn.Module):
    """A linear layer: parameters `kernel` `[c, num_classes]` and `bias` `[num_classes]`, float32.

    In a distilled network it contains a second layer of the same form, called "dist", and gives the mean of both.
    """

    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, distilled: jax.Array | None = None) -> jax.Array:
        """Maps features to logits; the matrix product is computed in `dtype`.

        Args:
          x: features `[b, c]`.
          distilled: features `[b, c]` for the second layer; None if there is none.

        Returns:
          Float32 logits `[b, num_classes]`.
        """
        shape = (x.shape[-1], self.num_classes)
        kernel = self.param("kernel", linear_uniform, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,), jnp.float32)
        logits = x.astype(self.dtype) @ kernel.astype(self.dtype)
        logits = logits.astype(jnp.float32) + bias[None, :]
        if distilled is None:
            return logits
        return (logits + Head(self.num_classes, self.dtype, name="dist")(distilled)) / 2
