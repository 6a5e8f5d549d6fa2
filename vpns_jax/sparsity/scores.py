"""Scores: one number for each prunable weight; the largest magnitudes are kept. Each criterion is a small function."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax import trees
from vpns_jax.errors import UserError

PyTree = Any


@jax.jit
def scaled_init(weights: PyTree) -> PyTree:
    """The initial learned scores: sqrt(6 / fan_in) * w / max|w| in each layer (HYDRA, arXiv 2002.10509, eq. 6).

    Args:
      weights: tree of prunable kernels, each [..., in, out]; fan_in is the product of all axes but the last. An array
        called `weight` is [out, in, ...], as in PyTorch and Equinox.

    Returns:
      Scores shaped as `weights`. An all-zero kernel gets zero scores.
    """
    return trees.like(weights, {path: _scaled(path, leaf) for path, leaf in trees.named_leaves(weights).items()})


def _scaled(path: str, w: jax.Array) -> jax.Array:
    fan_in = math.prod(w.shape[1:] if trees.is_outputs_first(path) else w.shape[:-1])
    largest = jnp.max(jnp.abs(w))
    return math.sqrt(6 / fan_in) * w / jnp.where(largest == 0, 1, largest)


def level(scores: PyTree) -> PyTree:
    """Scales every leaf to the same mean |s|, the mean over all leaves (after Molchanov et al., arXiv 1611.06440).

    Means over groups of weights differ little within a layer and much between layers. So under one threshold, layers
    with small scores would be pruned entirely.

    Args:
      scores: pytree of float arrays.

    Returns:
      The scaled scores. An all-zero leaf stays as it is.
    """
    # Half precision holds neither sums over many scores nor their number.
    sizes = jax.tree.map(lambda s: jnp.sum(jnp.abs(s), dtype=at_least_single(s)), scores)
    total = sum(jax.tree.leaves(sizes)) / sum(leaf.size for leaf in jax.tree.leaves(scores))

    def leveled(s: jax.Array, size: jax.Array) -> jax.Array:
        return (s * jnp.where(size > 0, total * s.size / size, 1)).astype(s.dtype)

    return jax.tree.map(leveled, scores, sizes)


def at_least_single(x: jax.Array) -> jnp.dtype:
    """The dtype of an array or, if it is of half precision, float32: for sums over many terms, and for squares."""
    return jnp.promote_types(x.dtype, jnp.float32)


@jax.jit
def magnitude(weights: PyTree) -> PyTree:
    """|w|, the score of magnitude pruning (Han et al., arXiv 1506.02626)."""
    return jax.tree.map(jnp.abs, weights)


def random(weights: PyTree, key: jax.Array) -> PyTree:
    """Random scores, uniform in [0, 1).

    Args:
      weights: tree of arrays.
      key: the random key; each leaf gets one of its own.

    Returns:
      Scores shaped as `weights`, float32.
    """
    leaves, structure = jax.tree.flatten(weights)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        structure, [jax.random.uniform(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )


@jax.jit
def connection_sensitivity(weights: PyTree, gradient: PyTree) -> PyTree:
    """|w g| = |dL/dm| at m = 1: how sensitive the loss is to a weight's mask (SNIP, Lee et al., arXiv 1810.02340).

    Args:
      weights: tree of float arrays, w.
      gradient: tree like `weights`, g = dL/dw.

    Returns:
      Scores shaped as `weights`.
    """
    return jax.tree.map(lambda w, g: jnp.abs(w * g), weights, gradient)


@jax.jit
def fisher(weights: PyTree, squared_gradient: PyTree) -> PyTree:
    """w^2 E[g^2] / 2: how much the loss would rise without a weight (Theis et al., arXiv 1801.05787).

    It is the second-order term w^2 h / 2 of optimal brain damage, with the empirical Fisher diagonal for the Hessian's.

    Args:
      weights: tree of float arrays, w.
      squared_gradient: tree like `weights`, E[g^2]: the mean of the squared gradient.

    Returns:
      Scores shaped as `weights`, at least float32: squares of small numbers are zero in float16.
    """

    def rise(w: jax.Array, g: jax.Array) -> jax.Array:
        w = w.astype(at_least_single(w))
        return w * w * g / 2

    return jax.tree.map(rise, weights, squared_gradient)


@jax.jit
def gradient_flow(weights: PyTree, hessian_gradient: PyTree) -> PyTree:
    """GraSP's score w (H g): to first order, half of the decrease of |g|^2 when a weight is pruned.

    GraSP (Wang et al., ICLR 2020, arXiv 2002.07376) scores -w (H g), half of the change of |g|^2, and removes the
    weights with the highest scores. Here the sign is the opposite, because all functions here give larger scores to
    better weights.

    Args:
      weights: tree of float arrays, w.
      hessian_gradient: tree like `weights`, H g: the loss's Hessian times its gradient.

    Returns:
      Scores shaped as `weights`.
    """
    return jax.tree.map(jnp.multiply, weights, hessian_gradient)


def bilevel_gradient(weights: PyTree, mask: PyTree, gradient: PyTree, gamma: float) -> PyTree:
    """The gradient of BiP's upper level: d l(m * w*(m)) / dm = (w - m g / gamma) g.

    BiP (Zhang et al., NeurIPS 2022, arXiv 2210.04092, proposition 1): w*(m) minimizes l(m * w) + gamma/2 |w|^2. With
    z = m * w, g = dl/dz and the Hessian of l in z approximated by zero, dw*/dm = -g / gamma.

    Args:
      weights: tree of float arrays, w.
      mask: tree of bool or float arrays like `weights`, m.
      gradient: tree of float arrays like `weights`, g.
      gamma: strength of the lower level's penalty, above zero.

    Returns:
      The gradient, a tree like `weights`.
    """
    return jax.tree.map(lambda w, m, g: (w - m * g / gamma) * g, weights, mask, gradient)


@jax.jit
def remaining(scores: PyTree, kept: PyTree) -> PyTree:
    """The magnitudes of scores, by which `Pattern.select_further` ranks.

    Args:
      scores: a tree like `Pattern.scored`.
      kept: a tree of bool like `scores`.

    Returns:
      A tree like `scores`, at least float32: zero where something is pruned already, and above zero elsewhere.
    """
    tiny = 2 * jnp.finfo(jnp.float32).tiny
    # Kept scores may be zero or no number, too.
    return jax.tree.map(lambda s, keep: jnp.where(keep, jnp.fmax(jnp.abs(s), tiny), 0), scores, kept)


def check_scores(scores: PyTree, mask: PyTree | None = None) -> None:
    """Checks that scores can tell weights apart.

    Args:
      scores: tree of float arrays.
      mask: tree of bool arrays like `scores`; only scores where it is True are checked. None checks all.

    Raises:
      UserError: all scores are equal, or a score is not finite.
    """
    least, most, finite = jax.device_get(_extremes(scores, mask))
    if not finite:
        raise UserError(
            "scores are not finite, so they cannot rank the weights; look for weights that are not finite, or lower "
            "the learning rate that the scores were trained at"
        )
    if least == most:
        raise UserError(
            f"scores are all {most:g}, so they cannot rank the weights; the cause is a head or other weights that are "
            "constant, or a loss that does not change"
        )


@jax.jit
def _extremes(scores: PyTree, mask: PyTree | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    kept = jax.tree.map(lambda s: jnp.ones(s.shape, bool), scores) if mask is None else mask
    pairs = list(zip(jax.tree.leaves(scores), jax.tree.leaves(kept), strict=True))
    least = jnp.min(jnp.stack([jnp.min(jnp.where(keep, s, jnp.inf)) for s, keep in pairs]))
    most = jnp.max(jnp.stack([jnp.max(jnp.where(keep, s, -jnp.inf)) for s, keep in pairs]))
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(jnp.where(keep, s, 0))) for s, keep in pairs]))
    return least, most, finite
