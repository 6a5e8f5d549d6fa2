"""How many groups are pruned at a density: of all layers, of each layer, or of every M weights."""

import math
from collections.abc import Sequence

import jax

from vpns_jax.errors import UserError
from vpns_jax.sparsity import allocation
from vpns_jax.sparsity.granularity import Granularity
from vpns_jax.sparsity.layers import Layer

# How many groups to prune: in all, in each layer, or (N:M) of every M weights. All may be traced.
Counts = int | jax.Array | Sequence[int | jax.Array]


def check_counts(grain: Granularity, allocated: str, layers: Sequence[Layer], density: float) -> None:
    """Checks that layers can be pruned to a density, and that groups are left.

    Args:
      grain: which weights make a group.
      allocated: one of `allocation.ALLOCATIONS`.
      layers: the layers that share the density.
      density: share of groups kept, in (0, 1].

    Raises:
      UserError: the density differs from N / M, or is too low to leave each layer a group; or N:M has an allocation
        that it cannot have.
    """
    if grain.kind == "N:M":
        n, m = grain.size
        if not math.isclose(density, n / m, abs_tol=1e-3):
            raise UserError(f"granularity {grain} has density {n / m:.3g} and no other, found {density:g}")
        if allocated == "erk":
            raise UserError(f"granularity {grain} has one density in all layers: allocation must be global or uniform")
    elif allocated == "global":
        groups = sum(layer.groups for layer in layers)
        kept = groups - _pruned(groups, density)
        if kept < len(layers):
            raise UserError(
                f"density {density:g} keeps {kept} of {groups} groups (granularity {grain}), fewer than the"
                f" {len(layers)} layers: layers would be empty"
            )
    elif all(
        share * layer.groups < 1 for share, layer in zip(_shares(allocated, layers, density), layers, strict=True)
    ):
        raise UserError(
            f"density {density:g} is less than one group in every layer (granularity {grain}, at most"
            f" {max(layer.groups for layer in layers)} groups): all layers would be empty"
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
    if grain.kind == "N:M":
        n, m = grain.size
        return m - n
    if allocated == "global":
        return _pruned(sum(layer.groups for layer in layers), density)
    shares = _shares(allocated, layers, density)
    return tuple(_pruned(layer.groups, share) for layer, share in zip(layers, shares, strict=True))


def _pruned(groups: int, density: float) -> int:
    """The same rule as `masks.pruned_count`, for groups."""
    return int((1 - density) * groups)


def _shares(allocated: str, layers: Sequence[Layer], density: float) -> list[float]:
    shapes = [[kernel.shape for kernel in layer.kernels] for layer in layers]
    return allocation.PER_LAYER[allocated](shapes, density)
