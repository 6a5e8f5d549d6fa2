"""Normalization with torch's semantics (Flax's batch norm keeps the biased variance and another momentum)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

MOMENTUM = 0.1
EPSILON = 1e-5


class BatchNorm(nn.Module):
    """`torch.nn.BatchNorm2d`: normalizes over all axes but the last.

    Parameters are `scale` and `bias` `[c]`. The collection `batch_stats` holds `mean` and `var`, `[c]` float32, and
    `count`, int32, the number of updates so far (torch's `num_batches_tracked`: nothing here uses it, but an exported
    state dict must hold it). All arithmetic is in float32, or in float64 if the input is float64; the result is cast
    to `dtype`.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalizes over all axes but the last.

        Args:
          x: float array `[..., c]`.
          train: False normalizes by the running statistics, True by this batch's mean and *biased* variance. With
            True, if `batch_stats` is mutable, the running statistics are updated, `new = 0.9 * old + 0.1 * batch`,
            with the *unbiased* variance.

        Returns:
          An array shaped as `x`, of `dtype`.
        """
        features = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, features, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, features, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        count = self.variable("batch_stats", "count", jnp.zeros, (), jnp.int32)

        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        over = tuple(range(x.ndim - 1))
        if train:
            mean = jnp.mean(x, axis=over, keepdims=True)
            var = jnp.mean(jnp.square(x - mean), axis=over, keepdims=True)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                n = x.size // x.shape[-1]
                unbiased = var.reshape(features) * (n / max(n - 1, 1))
                running_mean.value = (1 - MOMENTUM) * running_mean.value + MOMENTUM * mean.reshape(features)
                running_var.value = (1 - MOMENTUM) * running_var.value + MOMENTUM * unbiased
                count.value = count.value + 1
        else:
            mean, var = (jnp.expand_dims(v.value, over) for v in (running_mean, running_var))
        scale, bias = (jnp.expand_dims(p, over) for p in (scale, bias))
        return ((x - mean) * (jax.lax.rsqrt(var + EPSILON) * scale) + bias).astype(self.dtype)


def layer_norm(name: str, dtype: Any) -> nn.LayerNorm:
    """Layer normalization that computes the variance around the mean, as torch; Flax's default is less precise."""
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, use_fast_variance=False, name=name)
