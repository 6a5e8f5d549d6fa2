"""The layout of networks of one's own: each tensor has the name, the shape and the axes of its variable."""

from collections.abc import Mapping

from vpns_jax.models.layouts.rules import Rule, Shape


def flax(shapes: Mapping[str, Shape]) -> list[Rule]:
    """Rules for Flax's own names, such as "params/head/kernel".

    Args:
      shapes: the shapes of the network's variables by path.

    Returns:
      One rule for each variable.
    """
    return [Rule(path, (path,), shape, tuple(range(len(shape))), shape) for path, shape in shapes.items()]
