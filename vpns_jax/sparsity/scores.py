"""Scores: one number a prunable weight, whose magnitude says what is kept. One criterion is one small function."""

import math
from typing import Any

import jax
import jax.numpy as jnp

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
