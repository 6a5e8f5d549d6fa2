"""Vision Transformer (Dosovitskiy et al. 2021, arXiv 2010.11929), the variant of timm and AugReg.

It has pre-norm blocks, a class token, learned position embeddings, exact GELU, and layer normalization with epsilon
1e-6.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpns_jax.errors import UserError
from vpns_jax.models.cpu.conv import Conv
from vpns_jax.models.head import Head
from vpns_jax.models.norm import layer_norm
from vpns_jax.models.widths import Widths, unless_empty, width_of

# In every published network of this family an attention head has 64 channels.
HEAD_DIM = 64

token_init = nn.initializers.normal(0.02)
dense_init = unless_empty(nn.initializers.xavier_uniform())


class Attention(nn.Module):
    """Multi-head self-attention over tokens `[b, n, c]`: four dense layers with biases, usually `[c, c]`.

    Attributes:
      dtype: computation dtype.
      width: the number of outputs of queries, keys and values, HEAD_DIM for each head; None means c. With 0, only the
        last layer's bias is left.
    """

    dtype: Any
    width: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens `[b, n, c]` to `[b, n, c]`."""
        b, n, c = x.shape
        width = c if self.width is None else self.width

        def project(name: str) -> jax.Array:
            y = nn.Dense(width, dtype=self.dtype, kernel_init=dense_init, name=name)(x)
            return y.reshape(b, n, width // HEAD_DIM, HEAD_DIM)

        query, key, value = (project(name) for name in ("query", "key", "value"))
        # JAX's attention does not support arrays without heads.
        y = self.attend(query, key, value) if width else value
        return nn.Dense(c, dtype=self.dtype, kernel_init=dense_init, name="out")(y.reshape(b, n, width))

    def attend(self, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        """Attention, scaled by 1/sqrt(HEAD_DIM), with its softmax in float32.

        Args:
          query: `[b, n, heads, HEAD_DIM]`.
          key: `[b, n, heads, HEAD_DIM]`.
          value: `[b, n, heads, HEAD_DIM]`.

        Returns:
          `[b, n, heads, HEAD_DIM]`.
        """
        return jax.nn.dot_product_attention(query, key, value)


class MLP(nn.Module):
    """Two dense layers and the hidden units between them; `[b, n, c]` to `[b, n, c]`.

    Attributes:
      dropout: dropout rate after the hidden units.
      dtype: computation dtype.
      width: the number of hidden units; None means 4 c.
    """

    dropout: float
    dtype: Any
    width: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps tokens `[b, n, c]` to `[b, n, c]`; with `train`, dropout is on."""
        c = x.shape[-1]
        x = nn.Dense(4 * c if self.width is None else self.width, dtype=self.dtype, kernel_init=dense_init, name="fc1")(
            x
        )
        x = nn.gelu(x, approximate=False)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(c, dtype=self.dtype, kernel_init=dense_init, name="fc2")(x)


class Block(nn.Module):
    """Attention and MLP, each on normalized tokens and added to its input; `[b, n, c]` to `[b, n, c]`.

    Attributes:
      dropout: dropout rate after attention, after the MLP, and in the MLP.
      dtype: computation dtype.
      attention_width: see `Attention`.
      mlp_width: see `MLP`.
    """

    dropout: float
    dtype: Any
    attention_width: int | None = None
    mlp_width: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps tokens `[b, n, c]` to `[b, n, c]`; with `train`, dropout is on."""
        y = Attention(self.dtype, self.attention_width, name="attention")(layer_norm("norm1", self.dtype)(x))
        x = x + nn.Dropout(self.dropout, deterministic=not train)(y)
        y = MLP(self.dropout, self.dtype, self.mlp_width, name="mlp")(layer_norm("norm2", self.dtype)(x), train=train)
        return x + nn.Dropout(self.dropout, deterministic=not train)(y)


class ViT(nn.Module):
    """A Vision Transformer that classifies by its class token.

    The image size at initialization fixes the number of position embeddings. For another image size, load the weights
    again: `models.load_pretrained(..., image_size=...)` resizes the embeddings.

    Attributes:
      patch: side of a patch in pixels.
      features: c, a multiple of 64.
      depth: number of blocks.
      num_classes: s, number of logits.
      dropout: rate after the position embeddings, attention and each dense layer of the MLP, drawn from the
        rng "dropout" with `train=True`.
      dtype: computation dtype; parameters are float32 always.
      widths: the number of outputs of single layers that differs from c or 4 c; see `shrink`. That of
        "block_0/attention/value", HEAD_DIM for each head, applies to queries and keys, too; that of "block_0/mlp/fc1"
        is the number of hidden units.
      tokens: the learned tokens before those of the patches; each is read by a head.
    """

    tokens: ClassVar[tuple[str, ...]] = ("cls",)

    patch: int
    features: int
    depth: int
    num_classes: int = 1000
    dropout: float = 0.0
    dtype: Any = jnp.float32
    widths: Widths = ()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps normalized images `[b, h, w, 3]`, h and w multiples of `patch`, to float32 logits `[b, s]`."""
        b, h, w, _ = images.shape
        if h % self.patch or w % self.patch:
            raise UserError(f"image size {h}x{w} is no multiple of the ViT's patch size {self.patch}")
        embed = Conv(
            self.features, self.patch, self.patch, use_bias=True, dtype=self.dtype,
            kernel_init=nn.initializers.lecun_normal(), name="embedding",
        )  # fmt: skip
        x = embed(images).reshape(b, -1, self.features)
        learned = [self.param(name, token_init, (1, 1, self.features), jnp.float32) for name in self.tokens]
        tokens = [jnp.broadcast_to(token.astype(self.dtype), (b, 1, self.features)) for token in learned]
        x = jnp.concatenate([*tokens, x], axis=1)
        positions = self.param("pos_embedding", token_init, (1, x.shape[1], self.features), jnp.float32)
        x = x + positions.astype(self.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        for i in range(self.depth):
            name = f"block_{i}"
            heads = width_of(self.widths, f"{name}/attention/value", self.features)
            hidden = width_of(self.widths, f"{name}/mlp/fc1", 4 * self.features)
            x = Block(self.dropout, self.dtype, heads, hidden, name=name)(x, train=train)
        x = layer_norm("norm", self.dtype)(x)
        return Head(self.num_classes, self.dtype, name="head")(*(x[:, i] for i in range(len(tokens))))
