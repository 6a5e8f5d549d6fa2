"""Masks and the weights they belong to, matched by path: so any two pytrees fit that name the same leaves.

A mask may have the whole structure of the weights, with None where nothing is masked, or be a nested dict of the masked
leaves alone. Frameworks also hand the same weights over in several structures: Flax NNX gives an optimizer variables
first and arrays later.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax import trees
from vpns_jax.errors import UserError, several

PyTree = Any


def match(mask: PyTree, weights: PyTree) -> dict[str, jax.Array]:
    """Finds the weights that a mask is for.

    Args:
      mask: any pytree of bool or float arrays.
      weights: any pytree of arrays.

    Returns:
      The mask's leaves by the path of their weight, in the order of the weights.

    Raises:
      UserError: the mask names a leaf that the weights lack, or has a leaf of another shape.
    """
    keep, arrays = trees.named_leaves(mask), trees.named_leaves(weights)
    if unknown := [path for path in keep if path not in arrays]:
        raise UserError(
            f"the mask is of another tree: it names {several(unknown)}; the weights have {several(arrays)}; make the "
            "mask from these weights"
        )
    for path, leaf in keep.items():
        if jnp.shape(leaf) != jnp.shape(arrays[path]):
            raise UserError(
                f"the mask is of another tree: at {path or 'the top'} it has shape {jnp.shape(leaf)}, the weight "
                f"{jnp.shape(arrays[path])}"
            )
    return {path: keep[path] for path in arrays if path in keep}


def match_bool(mask: PyTree, weights: PyTree) -> dict[str, jax.Array]:
    """Finds the weights that a mask is for, and checks that it is one; see `match`.

    Args:
      mask: any pytree of bool arrays.
      weights: any pytree of arrays.

    Returns:
      See `match`.

    Raises:
      UserError: the mask is of another tree, or is not of bool.
    """
    keep = match(mask, weights)
    for path, leaf in keep.items():
        if jnp.result_type(leaf) != jnp.bool_.dtype:
            raise UserError(f"the mask at {path or 'the top'} is {jnp.result_type(leaf)}; masks are bool, True is kept")
    return keep


def zero_pruned(tree: PyTree, keep: Mapping[str, jax.Array]) -> PyTree:
    """Sets what is pruned to zero, also where it is not finite.

    Args:
      tree: any pytree of arrays, such as weights or their gradients.
      keep: bool arrays by path, as `match` gives them.

    Returns:
      A tree like `tree`.
    """
    named = trees.named_leaves(tree)
    return trees.like(tree, {p: jnp.where(keep[p], leaf, 0) if p in keep else leaf for p, leaf in named.items()})
