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


def magnitude(weights: PyTree) -> PyTree:
    """One-shot magnitude pruning, globally: the weight itself is its score (Han et al., arXiv 1506.02626)."""
    return jax.tree.map(jnp.abs, weights)
