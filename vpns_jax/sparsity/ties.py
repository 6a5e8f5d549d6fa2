"""How much of a mask was decided by ties: by positions, because scores were equal."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax.sparsity import n_of_m
from vpns_jax.sparsity.pattern import Pattern

PyTree = Any
# Rows of values that were ranked against each other, and what was kept of them; both [rows, values].
Ranking = tuple[jax.Array, jax.Array]


def tied_share(scores: PyTree, kept: PyTree, pattern: Pattern, *, signed: bool = False) -> float:
    """The share of what is kept that is kept only by its position: something pruned has as large a score.

    Args:
      scores: tree of float arrays that were ranked: over all layers, in each layer, or in each M weights.
      kept: tree of bool arrays like `scores`.
      pattern: what masks may look like; groups of weights are ranked by their mean |score|.
      signed: whether the largest scores are kept instead of the largest magnitudes.

    Returns:
      The share of kept weights, of groups where groups are pruned, in [0, 1].
    """
    return float(_tied_share(scores, kept, pattern.ranking, signed))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _tied_share(scores: PyTree, kept: PyTree, pattern: Pattern, signed: bool) -> jax.Array:
    rankings = _rankings(scores, kept, pattern, signed=signed)
    if pattern.allocation == "global" and not pattern.granularity.n_of_m:
        largest = jnp.max(jnp.stack([_largest_pruned(*ranking) for ranking in rankings]))
        bounds = [largest] * len(rankings)
    else:
        bounds = [_largest_pruned(*ranking) for ranking in rankings]
    tied = sum(
        jnp.sum(keep & (values <= bound), dtype=jnp.int32)
        for (values, keep), bound in zip(rankings, bounds, strict=True)
    )
    return tied / jnp.maximum(sum(jnp.sum(keep, dtype=jnp.int32) for _, keep in rankings), 1)


def _rankings(scores: PyTree, kept: PyTree, pattern: Pattern, *, signed: bool) -> list[Ranking]:
    """One for each layer; its rows were ranked apart only for N:M."""
    values = scores if signed else jax.tree.map(jnp.abs, scores)
    if pattern.granularity.n_of_m:
        _, m = pattern.granularity.n_of_m
        pairs = zip(jax.tree.leaves(values), jax.tree.leaves(kept), strict=True)
        return [(_rows(leaf, m), _rows(keep, m)) for leaf, keep in pairs]
    leaves = jax.tree.leaves(values)
    shares = [keep.astype(jnp.float32) for keep in jax.tree.leaves(kept)]
    return [
        # All weights of a group are kept, or none.
        (layer.mean(leaves, signed=True).reshape(1, -1), layer.mean(shares).reshape(1, -1) > 0.5)
        for layer in pattern.layers(scores)
    ]


def _rows(kernel: jax.Array, m: int) -> jax.Array:
    """Every `m` consecutive inputs as a row."""
    return jnp.moveaxis(n_of_m.split(kernel, m), -2, -1).reshape(-1, m)


def _largest_pruned(values: jax.Array, keep: jax.Array) -> jax.Array:
    """The largest value that is not kept, in each row: [rows, 1]."""
    return jnp.max(jnp.where(keep, -jnp.inf, values), axis=1, keepdims=True)
