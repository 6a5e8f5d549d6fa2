"""Fresh variables of networks: the shapes of all, and the values of some."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpns_jax import trees
from vpns_jax.models.cpu import platforms
from vpns_jax.models.head import HEAD
from vpns_jax.models.layouts import Shape

_LESS: dict[str, str | bool] = {"xla_backend_optimization_level": "1"}


def shapes(model: nn.Module, *, image_size: int) -> Any:
    """The variables that `model.init` makes, as `jax.ShapeDtypeStruct`s: nothing is computed or compiled.

    They are kept, because many parts of a run ask for them, and Python takes up to seconds to run through a network.

    Args:
      model: the network.
      image_size: side in pixels of the network's images.

    Returns:
      `{"params": ..., "batch_stats": ...}` (the latter only with batch normalization).
    """
    try:
        hash(model)
    except TypeError:
        # A module of others may have fields without a hash.
        return _shapes.__wrapped__(model, image_size)
    # Fresh dicts, which the caller may change.
    return jax.tree.map(lambda leaf: leaf, _shapes(model, image_size))


@functools.lru_cache(maxsize=64)
def _shapes(model: nn.Module, image_size: int) -> Any:
    return jax.eval_shape(model.init, jax.random.key(0), _images(image_size))


def shapes_by_path(model: nn.Module, *, image_size: int) -> dict[str, Shape]:
    """The shapes of all variables, by path; see `shapes`."""
    return {path: leaf.shape for path, leaf in trees.flatten(shapes(model, image_size=image_size)).items()}


def new_head(model: nn.Module, rng: jax.Array, *, image_size: int) -> dict[str, Any]:
    """A freshly initialized head of a network.

    Args:
      model: the network.
      rng: a random key.
      image_size: side in pixels of the network's images.

    Returns:
      The head's `kernel` `[c, s]` and `bias` `[s]`; of a distilled DeiT also `dist`, a dict of the same for its second
      token.
    """
    wanted = {path for path in shapes_by_path(model, image_size=image_size) if path.startswith(f"params/{HEAD}/")}
    return trees.unflatten(initialize(model, rng, wanted, image_size=image_size))["params"][HEAD]


def initialize(model: nn.Module, rng: jax.Array, wanted: set[str], *, image_size: int) -> dict[str, jax.Array]:
    """Initializes some of a network's variables; the compiler drops the work for the others.

    Args:
      model: the network.
      rng: a random key.
      wanted: the paths of the variables to initialize.
      image_size: side in pixels of the network's images.

    Returns:
      The fresh variables by path.
    """
    if not wanted:
        return {}

    def chosen(rng: jax.Array) -> dict[str, jax.Array]:
        variables = trees.flatten(model.init(rng, _blank(image_size)))
        return {path: leaf for path, leaf in variables.items() if path in wanted}

    return _once(chosen)(rng)


def init(model: nn.Module, rng: jax.Array, *, image_size: int) -> Any:
    """Initializes all of a network's variables.

    Args:
      model: the network.
      rng: a random key.
      image_size: side in pixels of the network's images.

    Returns:
      `{"params": ..., "batch_stats": ...}`, as `model.init` returns them.
    """
    return _once(lambda rng: model.init(rng, _blank(image_size)))(rng)


def _once(function: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    """Jits a function that runs once, so that compiling takes all of the time.

    By default, XLA's code for random numbers on CPUs takes three times longer to compile (5.5 instead of 1.9 s for a
    ResNet with twelve convolutions), and neither the numbers nor the time to draw them change.
    """
    return jax.jit(function, compiler_options=_LESS if platforms.traced_for() == "cpu" else None)


def _blank(size: int) -> jax.Array:
    images = _images(size)
    return jnp.zeros(images.shape, images.dtype)


def _images(size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
