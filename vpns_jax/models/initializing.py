"""Fresh variables of networks: the shapes of all, and the values of some."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpns_jax import trees
from vpns_jax.models.head import HEAD
from vpns_jax.models.layouts import Shape


def shapes_of(model: nn.Module, images: jax.Array) -> dict[str, Shape]:
    """The shapes of all variables, by path."""
    abstract = trees.flatten(jax.eval_shape(model.init, jax.random.key(0), images))
    return {path: leaf.shape for path, leaf in abstract.items()}


def new_head(model: nn.Module, rng: jax.Array, *, image_size: int) -> dict[str, jax.Array]:
    """A freshly initialized head of a network.

    Args:
      model: the network.
      rng: a random key.
      image_size: side in pixels of the network's images.

    Returns:
      The head's `kernel` `[c, s]` and `bias` `[s]`.
    """
    images = jnp.zeros((1, image_size, image_size, 3))
    wanted = {path for path in shapes_of(model, images) if path.startswith(f"params/{HEAD}/")}
    return trees.unflatten(initialize(model, images, rng, wanted))["params"][HEAD]


def initialize(model: nn.Module, images: jax.Array, rng: jax.Array, wanted: set[str]) -> dict[str, jax.Array]:
    """Initializes some of a network's variables; the compiler drops the work for the others.

    Args:
      model: the network.
      images: images `[b, h, w, 3]` of the size that the network will get.
      rng: a random key.
      wanted: the paths of the variables to initialize.

    Returns:
      The fresh variables by path.
    """
    if not wanted:
        return {}

    def init(rng: jax.Array) -> dict[str, jax.Array]:
        return {p: leaf for p, leaf in trees.flatten(model.init(rng, images)).items() if p in wanted}

    return jax.jit(init)(rng)
