"""Structured masks: whole groups of weights are kept or pruned, by one threshold or layer by layer.

A group's score is the mean |score| of its weights. This is the 1-norm by which filters (Li et al., arXiv 1608.08710)
and other groups (Mao et al., arXiv 1705.08922) are ranked, divided by the group's size, so that groups of different
size can be compared with one threshold. Channels of a network, to which several layers may write, are pruned by
`channels.ChannelPattern`.

The number of kept groups is exact, with ties and without: of G groups, in all or in a layer, `int((1 - density) * G)`
are pruned. Ties are decided as in `masks`. Where groups differ in size, the share of kept groups is not the share of
kept weights; reports give the share of weights.

`masks.attach_gradient` gives each weight the gradient sign(s) * dm. So a group's mean |s| changes by the mean of its
dm, the same as if the group had a single mask variable and a single score.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax.errors import check_name
from vpns_jax.sparsity import allocation, masks, n_of_m
from vpns_jax.sparsity.choosing import check_some
from vpns_jax.sparsity.counts import Counts, check_counts, count
from vpns_jax.sparsity.density import check_density
from vpns_jax.sparsity.granularity import WEIGHT, Granularity
from vpns_jax.sparsity.layers import Layer, layers
from vpns_jax.sparsity.scores import level, magnitude, random, remaining, scaled_init
from vpns_jax.trees import overlay

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Pattern:
    """What masks may look like. Hashable, so it can be static under `jax.jit`.

    Here each weight has a score, and masks have the weights' shapes. In `ChannelPattern` each channel has one.

    Attributes:
      granularity: which weights of a kernel make a group.
      allocation: "global" is one threshold; "uniform" and "erk" give each layer its own.
    """

    granularity: Granularity = WEIGHT
    allocation: str = "global"

    @property
    def ranking(self) -> "Pattern":
        """The pattern by which `select` ranks a tree like `scored`."""
        return self

    def layers(self, shapes: PyTree) -> tuple[Layer, ...]:
        """Lists the layers that share the density.

        Args:
          shapes: tree of kernels, or of their shapes.

        Returns:
          The layers, in the order of the scores' leaves.

        Raises:
          UserError: the granularity does not suit a kernel.
        """
        return layers(self.granularity, shapes)

    def scored(self, kernels: PyTree) -> PyTree:
        """The variables that have scores, with their values in the dense network. Criteria use their gradients.

        Args:
          kernels: the prunable kernels.

        Returns:
          The kernels themselves.
        """
        return kernels

    def magnitude(self, kernels: PyTree) -> PyTree:
        """Computes the magnitude of all variables that have scores.

        Args:
          kernels: the prunable kernels.

        Returns:
          A tree like `scored`.
        """
        return magnitude(kernels)

    def random(self, scored: PyTree, key: jax.Array) -> PyTree:
        """Draws random scores, one for each group: means of many would all lie near 0.5, of few they would not.

        Args:
          scored: a tree as `scored` returns it.
          key: the random key.

        Returns:
          A tree like `scored`, float32 in [0, 1); all weights of a group have the same score.
        """
        drawn, structure = jax.tree.flatten(random(scored, key))
        kernels = [kernel for layer in self.ranking.layers(scored) for kernel in layer.kernels]
        pairs = zip(drawn, kernels, strict=True)
        return jax.tree.unflatten(structure, [kernel.spread(kernel.first(x)) for x, kernel in pairs])

    def first_scores(self, kernels: PyTree) -> PyTree:
        """Makes initial scores from the scaled weights. If groups are pruned, scores are equally large in all layers.

        Args:
          kernels: the prunable kernels.

        Returns:
          A tree like `scored`.
        """
        scaled = scaled_init(kernels)
        return scaled if self.granularity.is_single else level(scaled)

    def put(self, weights: PyTree, scored: PyTree) -> PyTree:
        """Puts other values of the scored variables into a network.

        Args:
          weights: all weights of the network.
          scored: a tree as `scored` returns it.

        Returns:
          A tree like `weights`.
        """
        return overlay(weights, scored)

    def amount(self, shapes: PyTree, density: float) -> PyTree:
        """Computes how much to prune.

        Args:
          shapes: tree of kernels, or of their shapes.
          density: the share to keep.

        Returns:
          Numbers for `select`, so that one compilation serves every density.

        Raises:
          UserError: see `validate`.
        """
        return jax.tree.map(np.int32, pruned_groups(self, shapes, density))

    def select(self, scores: PyTree, amount: Any, *, signed: bool = False) -> PyTree:
        """Keeps the variables with the largest |score|, or with the largest score.

        Args:
          scores: a tree like `scored`.
          amount: how much to prune, from `amount`; may be traced.
          signed: whether the sign of a score counts.

        Returns:
          A tree like `scored`, bool.
        """
        return prune_groups(scores, amount, self, signed=signed)

    def select_further(self, scores: PyTree, kept: PyTree, amount: Any) -> PyTree:
        """Keeps the variables with the largest |score| among those that are still kept.

        Args:
          scores: a tree like `scored`.
          kept: a tree like `scored`, bool. It keeps whole groups, at least as many as are kept in the end.
          amount: how much to prune in all, from `amount`.

        Returns:
          A tree like `scored`, bool.
        """
        return self.select(remaining(scores, kept), amount)

    def gate(self, values: PyTree, weights: PyTree) -> PyTree:
        """Makes the tree that weights are multiplied by while scores are learned.

        Args:
          values: a tree like `scored`, bool or float.
          weights: all weights of the network.

        Returns:
          A subtree of `weights` by its structure and shapes.
        """
        del weights
        return values

    def mask(self, keep: PyTree, weights: PyTree) -> PyTree:
        """Makes the mask of a finished network.

        Args:
          keep: a tree like `scored`, bool.
          weights: all weights of the network, or their shapes.

        Returns:
          A tree of bool, a subtree of `weights` by its structure and shapes.
        """
        del weights
        return keep

    def kept(self, mask: PyTree) -> PyTree:
        """Reads from a network's mask which of the scored variables it keeps.

        Args:
          mask: a mask as `mask` makes it.

        Returns:
          A tree like `scored`, bool.
        """
        return mask


# Single weights under one threshold.
SINGLE = Pattern()


def validate(pattern: Pattern, shapes: PyTree, density: float) -> None:
    """Checks that kernels can be pruned with a pattern to a density.

    Args:
      pattern: what masks may look like.
      shapes: tree of arrays or `jax.ShapeDtypeStruct`s, as `models.prunable` gives it.
      density: share of groups kept.

    Raises:
      UserError: nothing may be pruned; the allocation is unknown; the granularity does not suit a kernel, such as one
        whose inputs M does not divide (the line names the kernel, so that the caller can exclude it and it stays
        dense); or the density is outside (0, 1], differs from N / M, or keeps fewer groups than there are layers under
        one threshold.
    """
    check_name("allocation", pattern.allocation, allocation.ALLOCATIONS)
    check_some(shapes)
    check_density(density)
    check_counts(pattern.granularity, pattern.allocation, pattern.layers(shapes), density)


def pruned_groups(pattern: Pattern, shapes: PyTree, density: float) -> Counts:
    """How many groups are pruned.

    Args:
      pattern: what masks may look like.
      shapes: tree of arrays or `jax.ShapeDtypeStruct`s.
      density: share of groups kept.

    Returns:
      For allocation "global" one number, for "uniform" and "erk" one a layer; for N:M it is M - N.

    Raises:
      UserError: see `validate`, which this calls.
    """
    validate(pattern, shapes, density)
    return count(pattern.granularity, pattern.allocation, pattern.layers(shapes), density)


def structured_mask(scores: PyTree, density: float, pattern: Pattern) -> PyTree:
    """The mask that keeps the groups of largest mean |score|, over all layers or in each layer.

    Args:
      scores: pytree of float arrays in the shapes of kernels.
      density: share of groups kept, in (0, 1]; for N:M it is N / M.
      pattern: what masks may look like.

    Returns:
      A tree of bool arrays shaped as `scores`; for the default pattern it is the mask of `masks.topk_mask`.

    Raises:
      UserError: see `validate`.
    """
    return prune_groups(scores, pruned_groups(pattern, scores, density), pattern)


@functools.partial(jax.jit, static_argnames=("pattern", "signed"))
def prune_groups(scores: PyTree, pruned: Counts, pattern: Pattern, *, signed: bool = False) -> PyTree:
    """The mask that drops the groups of smallest mean |score|, or of lowest mean score where `signed`.

    Args:
      scores: pytree of float arrays in the shapes of kernels.
      pruned: from `pruned_groups`; traced, so that one compilation serves every density.
      pattern: what masks may look like.
      signed: whether the sign of a score has a meaning, as in GraSP. Then scores in a group can cancel each other.

    Returns:
      A tree of bool arrays shaped as `scores`.
    """
    if pattern.granularity.n_of_m:
        _, m = pattern.granularity.n_of_m
        return jax.tree.map(lambda leaf: n_of_m.prune(leaf if signed else jnp.abs(leaf), m, pruned), scores)
    leaves, structure = jax.tree.flatten(scores)
    all_layers = pattern.layers(scores)
    prune = masks.prune_lowest if signed else masks.prune_smallest
    means = [layer.mean(leaves, signed=signed) for layer in all_layers]
    if isinstance(pruned, Sequence):
        keep = [prune(mean, number) for mean, number in zip(means, pruned, strict=True)]
    else:
        keep = prune(means, pruned)
    spread = {
        leaf: kernel.spread(kept)
        for layer, kept in zip(all_layers, keep, strict=True)
        for leaf, kernel in zip(layer.leaves, layer.kernels, strict=True)
    }
    return jax.tree.unflatten(structure, [spread[i] for i in range(len(leaves))])
