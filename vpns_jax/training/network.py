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
from vpns_jax.prompting import Prompt, label_mapping
from vpns_jax.sparsity import masks

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Network:
    """The static half of f(theta * m; x'): what training never changes. Hashable, so static under `jax.jit`.

    Attributes:
      model: a Linen module; called with float [b, h, w, 3] it returns source logits [b, s]. If it has a `dtype`, it
        casts its kernels to that.
      prompt: what a prompted pass does to images.
      plain: what a plain pass does to them: a prompt of kind "none", or None to leave the images' size alone.
      mean, std: of each channel, applied once the prompt is on and clamped.
    """

    model: nn.Module
    prompt: Prompt
    plain: Prompt | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def prompted(self) -> bool:
        """Whether there is a prompt at all."""
        return self.prompt.is_learned

    @property
    def dtype(self) -> Any:
        """What the model computes in: kernels, whatever they are kept as, are cast to it first."""
        return getattr(self.model, "dtype", None)


@struct.dataclass
class Subnetwork:
    """The other half: all arrays that a sparse network needs to run. It is evaluated, reported and handed on.

    Attributes:
      weights: the model's `params`.
      mask: bool, a subtree of `weights`; {} masks nothing.
      batch_stats: running statistics, {} for a model without.
      prompt: parameters of the network's prompt.
      mapping: int32 [t], the source class of each target class.
    """

    weights: PyTree
    mask: PyTree
    batch_stats: PyTree
    prompt: PyTree
    mapping: jax.Array


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
    """Runs the masked network on prompted images.

    Args:
      network: the static half.
      weights: the model's `params`.
      mask: subtree of `weights`, bool or straight-through floats; {} masks nothing.
      batch_stats: running statistics, {} for a model without.
      prompt: parameters of `network.prompt`; None for a plain pass.
      images: uint8 [b, h, w, c], c in {1, 3}.
      mapping: int [t], source class of each target class; None returns the source logits.
      train: batch statistics and dropout if true, running statistics if not.
      rng: for a prompt that moves, and for dropout.

    Returns:
      Logits [b, t], and the batch statistics after the pass (as they were, unless `train`).
    """
    place_key, dropout_key = (None, None) if rng is None else jax.random.split(rng)
    x = augment.to_float(images)
    if prompt is not None:
        x = network.prompt.apply(sharding.gather_parameters(prompt), x, place_key)
    elif network.plain is not None:
        x = network.plain.apply({}, x)
    x = (x - jnp.asarray(network.mean)[None, None, None]) / jnp.asarray(network.std)[None, None, None]

    # Gathered once the mask is on, so that one array a kernel is sent.
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


@functools.partial(jax.jit, static_argnames=("network", "prompted"))
def predict(network: Network, subnetwork: Subnetwork, images: jax.Array, *, prompted: bool) -> jax.Array:
    """Source logits in eval mode.

    Args:
      network: the static half.
      subnetwork: the arrays.
      images: uint8 [b, h, w, c].
      prompted: with the prompt on, or plain.

    Returns:
      Float [b, s].
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
