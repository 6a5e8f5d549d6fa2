"""How many groups are pruned at a density: of all layers, of each layer, or of every M weights."""

import math
from collections.abc import Sequence

import jax

from vpns_jax.errors import UserError
from vpns_jax.sparsity import allocation
from vpns_jax.sparsity.density import pruned_of
from vpns_jax.sparsity.granularity import Granularity
from vpns_jax.sparsity.layers import Layer

# How many groups to prune: in all, in each layer, or (N:M) of every M weights. All may be traced.
Counts = int | jax.Array | Sequence[int | jax.Array]


def check_counts(grain: Granularity, allocated: str, layers: Sequence[Layer], density: float) -> None:
    """Checks that layers can be pruned to a density, and that each layer can have a group.

    Args:
      grain: which weights make a group.
      allocated: one of `allocation.ALLOCATIONS`.
      layers: the layers that share the density.
      density: share of groups kept, in (0, 1].

    Raises:
      UserError: the density differs from N / M, keeps fewer groups than there are layers under one threshold, or keeps
        none of a layer that has its own; or N:M has an allocation that it cannot have.
    """
    if grain.n_of_m:
        n, m = grain.n_of_m
        if not math.isclose(density, n / m, abs_tol=1e-3):
            raise UserError(f"granularity {grain} has density {n / m:.3g} and no other, found {density:g}")
        if allocated == "erk":
            raise UserError(f"granularity {grain} has one density in all layers: allocation must be global or uniform")
    elif allocated == "global":
        groups = sum(layer.groups for layer in layers)
        kept = groups - pruned_of(groups, density)
        if kept < len(layers):
            raise UserError(
                f"density {density:g} keeps {kept} of {groups} groups (granularity {grain}), fewer than the"
                f" {len(layers)} layers: layers would be empty"
            )
    else:
        # Each layer keeps a group, unless 1 - density is rounded to 1.
        for layer, share in zip(layers, _shares(allocated, layers, density), strict=True):
            if pruned_of(layer.groups, share) == layer.groups:
                raise UserError(
                    f"density {density:g} keeps none of {layer.groups} groups of a layer (granularity {grain})"
                )


def count(grain: Granularity, allocated: str, layers: Sequence[Layer], density: float) -> Counts:
    """Computes how many groups are pruned.

    Args:
      grain: which weights make a group.
      allocated: one of `allocation.ALLOCATIONS`.
      layers: the layers that share the density.
      density: share of groups kept; see `check_counts`.

    Returns:
      For allocation "global" one number, for "uniform" and "erk" one a layer; for N:M it is M - N.
    """
    if grain.n_of_m:
        n, m = grain.n_of_m
        return m - n
    if allocated == "global":
        return pruned_of(sum(layer.groups for layer in layers), density)
    shares = _shares(allocated, layers, density)
    return tuple(pruned_of(layer.groups, share) for layer, share in zip(layers, shares, strict=True))


def _shares(allocated: str, layers: Sequence[Layer], density: float) -> list[float]:
    shapes = [[kernel.shape for kernel in layer.kernels] for layer in layers]
    return allocation.PER_LAYER[allocated](shapes, density)
