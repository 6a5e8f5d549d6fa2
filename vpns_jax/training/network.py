"""The paper in one function: prompt the images, mask the kernels, apply the backbone, map the logits."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from vpns_jax.data import augment
from vpns_jax.parallel import sharding
from vpns_jax.prompting import Prompt, create, label_mapping
from vpns_jax.sparsity import masks

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Network:
    """The static half of f(theta * m; x'): what training never changes. Hashable, so static under `jax.jit`.

    Attributes:
      model: a Linen module that maps images, float [b, h, w, 3], to source logits [b, s]. If it has a `dtype`, it casts
        its kernels to that.
      prompt: the prompt of prompted passes.
      plain: what plain passes apply instead: a prompt of kind "none", which only puts images on the canvas; or None, to
        keep the images' own size.
      mean: the mean of each channel, subtracted after the prompt is applied and clamped.
      std: the standard deviation of each channel.
    """

    model: nn.Module
    prompt: Prompt
    plain: Prompt | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def prompted(self) -> bool:
        """Whether the network has a prompt with parameters. Even then, plain passes do not apply it."""
        return self.prompt.is_learned

    @property
    def dtype(self) -> Any:
        """The dtype that the model computes in, to which kernels are cast first; None if the model has none."""
        return getattr(self.model, "dtype", None)


@struct.dataclass
class Subnetwork:
    """The other half: all arrays that a sparse network needs to run.

    Attributes:
      weights: the model's `params`.
      mask: a subtree of `weights` of bool arrays; {} masks nothing.
      batch_stats: running statistics; {} for a model without.
      prompt: the prompt's parameters.
      mapping: int32 [t], the source class of each target class.
    """

    weights: PyTree
    mask: PyTree
    batch_stats: PyTree
    prompt: PyTree
    mapping: jax.Array

    def masked(self) -> "Subnetwork":
        """The same network with the mask applied to the weights, and no mask left."""
        return dataclasses.replace(self, weights=masks.apply(self.weights, self.mask), mask={})

    def variables(self) -> PyTree:
        """What `model.apply` takes: `params`, and `batch_stats` for a model that has them. No mask is applied."""
        return {"params": self.weights} | ({"batch_stats": self.batch_stats} if self.batch_stats else {})


def forward(
    network: Network,
    *,
    weights: PyTree,
    mask: PyTree,
    batch_stats: PyTree,
    prompt: PyTree | None,
    images: jax.Array,
    mapping: jax.Array | None,
    train: bool,
    rng: jax.Array | None = None,
) -> tuple[jax.Array, PyTree]:
    """Runs the masked network on prompted or plain images.

    Args:
      network: the static half.
      weights: the model's `params`.
      mask: a subtree of `weights`, bool or straight-through floats; {} masks nothing.
      batch_stats: running statistics; {} for a model without.
      prompt: parameters of `network.prompt`; None for a plain pass.
      images: uint8 [b, h, w, c], with c 1 or 3.
      mapping: int [t], the source class of each target class; None returns the source logits.
      train: True for batch statistics and dropout; False for running statistics.
      rng: the key for a moving prompt and for dropout; None for neither.

    Returns:
      Logits [b, t] (or [b, s] without a mapping), and the running statistics, which change only if `train` is True.
    """
    place_key, dropout_key = (None, None) if rng is None else jax.random.split(rng)
    x = augment.to_float(images)
    # The prompt changes pixels in [0, 1], so it comes before normalization.
    if prompt is not None:
        x = network.prompt.apply(sharding.gather_parameters(prompt), x, place_key)
    elif network.plain is not None:
        x = network.plain.apply({}, x)
    x = (x - jnp.asarray(network.mean)[None, None, None]) / jnp.asarray(network.std)[None, None, None]

    # Gathered after the mask is applied, so that only one array per kernel is sent.
    params = sharding.gather_parameters(masks.apply(weights, mask), network.dtype)
    variables = {"params": params, "batch_stats": batch_stats}
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    if train:
        source_logits, changed = network.model.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs)
        batch_stats = changed.get("batch_stats", batch_stats)
    else:
        source_logits = network.model.apply(variables, x, train=False)
    logits = source_logits if mapping is None else label_mapping.apply(source_logits, mapping)
    return logits, batch_stats


def without_prompt(network: Network, subnetwork: Subnetwork) -> tuple[Network, Subnetwork]:
    """Drops the prompt, which plain passes do not need: networks that differ in nothing else then share a program.

    Args:
      network: the static half.
      subnetwork: the arrays.

    Returns:
      Both without a prompt.
    """
    blank = create("none", canvas_size=network.prompt.canvas_size)
    return dataclasses.replace(network, prompt=blank), dataclasses.replace(subnetwork, prompt={})


@functools.partial(jax.jit, static_argnames=("network", "prompted"))
def predict(network: Network, subnetwork: Subnetwork, images: jax.Array, *, prompted: bool) -> jax.Array:
    """Computes source logits in eval mode.

    Args:
      network: the static half.
      subnetwork: the arrays.
      images: uint8 [b, h, w, c].
      prompted: whether the prompt is applied.

    Returns:
      The logits, float [b, s].
    """
    logits, _ = forward(
        network,
        weights=subnetwork.weights,
        mask=subnetwork.mask,
        batch_stats=subnetwork.batch_stats,
        prompt=subnetwork.prompt if prompted else None,
        images=images,
        mapping=None,
        train=False,
    )
    return logits
