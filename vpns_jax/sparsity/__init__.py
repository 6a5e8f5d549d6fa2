"""Scores, exact global selection, and masks: pure functions on trees that know nothing of images."""

from vpns_jax.sparsity.masks import (
    apply,
    attach_gradient,
    density,
    prune_smallest,
    pruned_count,
    straight_through,
    threshold,
    topk_mask,
)
from vpns_jax.sparsity.scores import magnitude, scaled_init
from vpns_jax.sparsity.selection import kth_smallest

__all__ = [
    "apply",
    "attach_gradient",
    "density",
    "kth_smallest",
    "magnitude",
    "prune_smallest",
    "pruned_count",
    "scaled_init",
    "straight_through",
    "threshold",
    "topk_mask",
]
