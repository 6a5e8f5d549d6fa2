"""Scores: one number a prunable weight, whose magnitude says what is kept. One criterion is one small function."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax.errors import UserError

PyTree = Any


@jax.jit
def scaled_init(weights: PyTree) -> PyTree:
    """The start of learned scores: sqrt(6 / fan_in) * w / max|w|, layer by layer (HYDRA, arXiv 2002.10509, eq. 6).

    Args:
      weights: nested dict of prunable kernels, each [..., in, out]; fan_in is the product of all axes but the last.

    Returns:
      Scores shaped as `weights`. An all-zero kernel gets zero scores.
    """
    return jax.tree.map(_scaled, weights)


def _scaled(w: jax.Array) -> jax.Array:
    fan_in = math.prod(w.shape[:-1])
    largest = jnp.max(jnp.abs(w))
    return math.sqrt(6 / fan_in) * w / jnp.where(largest == 0, 1, largest)


def level(scores: PyTree) -> PyTree:
    """The scores with every leaf scaled to the same mean |s|, that of all (after Molchanov et al., arXiv 1611.06440).

    Means over groups of weights differ little within a layer and much between layers: under one threshold, the
    layers of smaller scores would go whole.
    """
    sizes = jax.tree.map(lambda s: jnp.sum(jnp.abs(s)), scores)
    total = sum(jax.tree.leaves(sizes)) / sum(leaf.size for leaf in jax.tree.leaves(scores))
    return jax.tree.map(lambda s, size: s * jnp.where(size > 0, total * s.size / size, 1), scores, sizes)


def magnitude(weights: PyTree) -> PyTree:
    """One-shot magnitude pruning, globally: the weight itself is its score (Han et al., arXiv 1506.02626)."""
    return jax.tree.map(jnp.abs, weights)


def connection_sensitivity(weights: PyTree, gradient: PyTree) -> PyTree:
    """|dL/dm| at m = 1, which is |w g|: how much the loss feels a weight (SNIP, Lee et al., arXiv 1810.02340).

    Args:
      weights, gradient: trees of one structure; `gradient` is g = dL/dw.
    """
    return jax.tree.map(lambda w, g: jnp.abs(w * g), weights, gradient)


def gradient_flow(weights: PyTree, hessian_gradient: PyTree) -> PyTree:
    """w (H g): to first order half of what |g|^2 loses if a weight goes; keep the largest, sign and all.

    GraSP (Wang et al., ICLR 2020, arXiv 2002.07376) scores -w (H g), half of the change of |g|^2, and removes
    the weights that score highest. This is its negative, so that larger is better here as everywhere.

    Args:
      weights, hessian_gradient: trees of one structure; `hessian_gradient` is the loss's Hessian times its gradient.
    """
    return jax.tree.map(jnp.multiply, weights, hessian_gradient)


def bilevel_gradient(weights: PyTree, mask: PyTree, gradient: PyTree, gamma: float) -> PyTree:
    """d l(m * w*(m)) / dm = (w - m g / gamma) g, the solution w* of the lower level included.

    BiP (Zhang et al., NeurIPS 2022, arXiv 2210.04092, proposition 1): w*(m) minimises l(m * w) + gamma/2 |w|^2; with
    z = m * w, g = dl/dz and the Hessian of l in z taken for zero, dw*/dm = -g / gamma.

    Args:
      weights, mask, gradient: trees of one structure; `mask` is bool or float, `gradient` is g.
      gamma: strength of the lower level's penalty, above zero.
    """
    return jax.tree.map(lambda w, m, g: (w - m * g / gamma) * g, weights, mask, gradient)


def check_scores(scores: PyTree, mask: PyTree | None = None) -> None:
    """Raises `UserError` if scores cannot tell weights apart: all are equal, or one is not finite.

    Args:
      scores: tree of float arrays.
      mask: tree of bool like it; where it is False scores do not count. None counts all.
    """
    kept = jax.tree.map(lambda s: jnp.ones(s.shape, bool), scores) if mask is None else mask
    least, most, finite = jax.device_get(_extremes(scores, kept))
    if not finite:
        raise UserError(
            "scores are not finite, so they tell nothing of the weights; look for weights that are not finite, or "
            "lower the learning rate that the scores were trained at"
        )
    if least == most:
        raise UserError(
            f"scores are all {most:g}, so they tell no weight from another; a head or other weights that are constant, "
            "or a loss that does not move, make them so"
        )


def tied_share(scores: PyTree, mask: PyTree, *, signed: bool = False) -> float:
    """The share of what `mask` keeps that is kept by its place alone: as large as something that is pruned.

    Args:
      scores: tree of float arrays; the largest magnitudes are kept.
      mask: tree of bool like it.
      signed: whether the largest scores are kept, sign and all.
    """
    return float(_tied_share(scores if signed else jax.tree.map(jnp.abs, scores), mask))


@jax.jit
def _extremes(scores: PyTree, mask: PyTree) -> tuple[jax.Array, jax.Array, jax.Array]:
    pairs = list(zip(jax.tree.leaves(scores), jax.tree.leaves(mask), strict=True))
    least = jnp.min(jnp.stack([jnp.min(jnp.where(keep, s, jnp.inf)) for s, keep in pairs]))
    most = jnp.max(jnp.stack([jnp.max(jnp.where(keep, s, -jnp.inf)) for s, keep in pairs]))
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(jnp.where(keep, s, 0))) for s, keep in pairs]))
    return least, most, finite


@jax.jit
def _tied_share(scores: PyTree, mask: PyTree) -> jax.Array:
    pairs = list(zip(jax.tree.leaves(scores), jax.tree.leaves(mask), strict=True))
    largest_pruned = jnp.max(jnp.stack([jnp.max(jnp.where(keep, -jnp.inf, s)) for s, keep in pairs]))
    tied = sum(jnp.sum(keep & (s <= largest_pruned), dtype=jnp.int32) for s, keep in pairs)
    kept = sum(jnp.sum(keep, dtype=jnp.int32) for _, keep in pairs)
    return tied / jnp.maximum(kept, 1)
