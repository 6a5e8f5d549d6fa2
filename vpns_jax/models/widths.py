"""Widths: the numbers of outputs of layers that differ from the standard network."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

# (layer, outputs), with the layer's "/"-joined path. If several layers write to one sum, the first stands for all.
Widths = tuple[tuple[str, int], ...]


def freeze(widths: Mapping[str, int]) -> Widths:
    """Makes widths hashable, to be a module's field; equal widths become equal values.

    Args:
      widths: the number of outputs by layer.

    Returns:
      The widths, sorted by layer.
    """
    return tuple(sorted((layer, int(outputs)) for layer, outputs in widths.items()))


def width_of(widths: Widths, layer: str, standard: int) -> int:
    """The number of outputs of a layer.

    Args:
      widths: the network's widths.
      layer: the layer's path.
      standard: the number if `widths` does not name the layer.

    Returns:
      The number.
    """
    return dict(widths).get(layer, standard)


def unless_empty(init: nn.initializers.Initializer) -> nn.initializers.Initializer:
    """Makes an initializer accept shapes without elements; many initializers would divide by zero channels.

    Args:
      init: the initializer for all other shapes.

    Returns:
      The new initializer.
    """

    def draw(rng: Any, shape: Any, dtype: Any = jnp.float32) -> Any:
        return init(rng, shape, dtype) if math.prod(shape) else jnp.zeros(shape, dtype)

    return draw
