"""Small networks of kinds that the package does not have, written as others write them."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpns_jax.models.widths import Widths, width_of


class ConvNeXt(nn.Module):
    """Depthwise convolutions, layer normalization, layer scales; hidden units between two dense layers."""

    widths: Widths = ()
    num_classes: int = 3

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(4, (2, 2), (2, 2), name="stem")(images)
        x = nn.LayerNorm(name="stem_norm")(x)
        for i in range(2):
            y = nn.Conv(4, (3, 3), feature_group_count=4, name=f"dw{i}")(x)
            y = nn.LayerNorm(name=f"norm{i}")(y)
            y = nn.Dense(width_of(self.widths, f"pwconv1_{i}", 8), name=f"pwconv1_{i}")(y)
            y = nn.gelu(y, approximate=i == 1)
            y = nn.Dense(4, name=f"pwconv2_{i}")(y)
            x = x + y * self.param(f"scale{i}", nn.initializers.constant(0.5), (4,))[None, None, None]
        x = nn.LayerNorm(name="norm")(x.mean((1, 2)))
        return nn.Dense(self.num_classes, name="head")(x)


class Mixer(nn.Module):
    """An MLP over tokens and one over channels; both have hidden units."""

    widths: Widths = ()
    num_classes: int = 3

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.Conv(4, (4, 4), (4, 4), name="stem")(images)
        x = x.reshape(x.shape[0], -1, 4)
        for i in range(2):
            y = nn.LayerNorm(name=f"norm1_{i}")(x).swapaxes(1, 2)
            y = nn.gelu(nn.Dense(width_of(self.widths, f"tokens1_{i}", 6), name=f"tokens1_{i}")(y))
            y = nn.Dense(x.shape[1], name=f"tokens2_{i}")(y)
            x = x + y.swapaxes(1, 2)
            y = nn.LayerNorm(name=f"norm2_{i}")(x)
            y = nn.silu(nn.Dense(width_of(self.widths, f"channels1_{i}", 5), name=f"channels1_{i}")(y))
            x = x + nn.Dense(4, name=f"channels2_{i}")(y)
        return nn.Dense(self.num_classes, name="head")(nn.LayerNorm(name="norm")(x).mean(1))


class Concatenated(nn.Module):
    """Branches that are concatenated, read by a convolution, by the next branches, and flat by a dense layer."""

    widths: Widths = ()
    num_classes: int = 3

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        def conv(name: str, width: int, size: int, x: jax.Array) -> jax.Array:
            y = nn.Conv(width_of(self.widths, name, width), (size, size), use_bias=False, name=name)(x)
            return nn.relu(nn.BatchNorm(not train, epsilon=1e-3, name=f"{name}_bn")(y))

        a, b = conv("a", 3, 3, images), conv("b", 4, 1, images)
        x = jnp.concatenate([a, b], axis=-1)
        c = conv("c", 5, 3, x)
        x = nn.max_pool(jnp.concatenate([x, c], axis=-1), (2, 2), (2, 2))
        d = conv("d", 2, 1, x)
        x = jnp.concatenate([d, x], axis=-1).reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(width_of(self.widths, "fc", 6), use_bias=False, name="fc")(x))
        return nn.Dense(self.num_classes, name="head")(x)


class Mobile(nn.Module):
    """Inverted residuals: depthwise convolutions between batch normalizations, and squeeze-and-excitation."""

    widths: Widths = ()
    num_classes: int = 3

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        norm = partial(nn.BatchNorm, not train)
        width = partial(width_of, self.widths)
        stem = width("stem", 4)
        x = nn.relu6(norm(name="stem_bn")(nn.Conv(stem, (3, 3), (2, 2), use_bias=False, name="stem")(images)))
        for i in range(2):
            wide = width(f"expand{i}", 6)
            y = nn.relu6(norm(name=f"expand{i}_bn")(nn.Conv(wide, (1, 1), use_bias=False, name=f"expand{i}")(x)))
            y = nn.Conv(wide, (3, 3), use_bias=False, feature_group_count=wide, name=f"dw{i}")(y)
            y = nn.relu6(norm(name=f"dw{i}_bn")(y))
            s = y.mean((1, 2), keepdims=True)
            s = nn.relu(nn.Conv(width(f"squeeze{i}", 3), (1, 1), name=f"squeeze{i}")(s))
            y = y * nn.sigmoid(nn.Conv(wide, (1, 1), name=f"excite{i}")(s))
            y = norm(name=f"project{i}_bn")(nn.Conv(stem, (1, 1), use_bias=False, name=f"project{i}")(y))
            x = x + y * self.param(f"scale{i}", nn.initializers.constant(0.5), (stem,))[None, None, None]
        return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))


class Attending(nn.Module):
    """Attention without any normalization, so that the residual stream can be pruned beside heads."""

    widths: Widths = ()
    num_classes: int = 3

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        stream = width_of(self.widths, "stem", 5)
        x = nn.Conv(stream, (4, 4), (4, 4), name="stem")(images)
        x = x.reshape(x.shape[0], -1, stream)
        for i in range(2):
            width = width_of(self.widths, f"value{i}", 6)
            query, key, value = (
                nn.Dense(width, name=f"{name}{i}")(x).reshape(*x.shape[:2], -1, 2) for name in ("query", "key", "value")
            )
            weights = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", query, key), axis=-1)
            y = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(*x.shape[:2], width)
            x = x + nn.Dense(stream, name=f"out{i}")(y)
        return nn.Dense(self.num_classes, name="head")(x.mean(1))


NETWORKS: dict[str, Any] = {
    "convnext": ConvNeXt(),
    "mixer": Mixer(),
    "concatenated": Concatenated(),
    "mobile": Mobile(),
    "attending": Attending(),
}
