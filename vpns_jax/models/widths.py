"""Widths: how many outputs the layers of a network have where they are not the standard ones."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

# (layer, outputs): a layer by its "/"-joined path. Where several layers write to one sum, the first names them all.
Widths = tuple[tuple[str, int], ...]


def freeze(widths: Mapping[str, int]) -> Widths:
    """The same as a field of a module has it: hashable, and equal where the widths are.

    Args:
      widths: outputs by layer.
    """
    return tuple(sorted((layer, int(outputs)) for layer, outputs in widths.items()))


def width_of(widths: Widths, layer: str, standard: int) -> int:
    """How many outputs a layer has.

    Args:
      widths: of the network.
      layer: its path.
      standard: what it has if `widths` does not name it.
    """
    return dict(widths).get(layer, standard)


def unless_empty(init: nn.initializers.Initializer) -> nn.initializers.Initializer:
    """An initializer that also takes shapes without an element, for which many divide by the number of channels.

    Args:
      init: what draws all others.
    """

    def draw(rng: Any, shape: Any, dtype: Any = jnp.float32) -> Any:
        return init(rng, shape, dtype) if math.prod(shape) else jnp.zeros(shape, dtype)

    return draw
