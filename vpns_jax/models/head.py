"""The classifier at the end of every network; its module is called `HEAD` in all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax import trees
from vpns_jax.errors import UserError

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


def covers_head(patterns: Sequence[str]) -> bool:
    """Whether `dont_load` with these patterns leaves out the head."""
    return any(trees.matches(f"{HEAD}/kernel", pattern) for pattern in patterns)


def check_head(variables: Mapping[str, Any]) -> None:
    """Checks that a head is not constant. Some published files hold a head of zeros.

    Args:
      variables: a network's variables, with or without batch statistics.

    Raises:
      UserError: the head gives the same logits for every image.
    """
    leaves = trees.flatten(variables["params"][HEAD])
    kernel = np.concatenate([leaves[path] for path in ("kernel", "dist/kernel") if path in leaves])
    if kernel.shape[-1] > 1 and not np.any(kernel - kernel[:, :1]):
        what = f"all {kernel.flat[0]:g}" if np.all(kernel == kernel.flat[0]) else "equal for all classes"
        raise UserError(
            f"the head of these weights is constant ({what}, as in Google's ImageNet-21k ViTs before fine-tuning): it "
            "predicts the same for every image; take mapping.kind=head, which learns a new head, or fine-tuned weights"
        )
