"""From scores to masks: the global top-k mask, its straight-through gradient, and its use on weights.

A mask is a tree of bool arrays, True where a weight is kept. It has leaves only where weights are prunable.

The number of kept weights is exact, with ties and without: of N scores, the `pruned_count` smallest magnitudes are
pruned. Scores of equal magnitude at the threshold are pruned in the order of the tree's leaves, and within a leaf in
row-major order. (The released code prunes every score equal to the threshold; without ties both masks are equal.)
A score that is NaN is pruned before all others.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from vpns_jax import trees, xla
from vpns_jax.sparsity import selection
from vpns_jax.sparsity.density import check_density, pruned_of
from vpns_jax.sparsity.matching import match
from vpns_jax.sparsity.scores import bilevel_gradient

PyTree = Any


def pruned_count(tree: PyTree, density: float) -> int:
    """How many of the tree's N elements are pruned: `int((1 - density) * N)`, the paper's k.

    Args:
      tree: pytree of arrays, N elements in all.
      density: share kept, in (0, 1].

    Returns:
      k.

    Raises:
      UserError: `density` is outside (0, 1].
      ValueError: the tree is empty or too large, see `selection.count`.
    """
    check_density(density)
    return pruned_of(selection.count(tree), density)


def topk_mask(scores: PyTree, density: float) -> PyTree:
    """The mask that keeps the largest |score| over the whole tree: exactly N - int((1 - density) * N) of N.

    Args:
      scores: pytree of float arrays, any shapes.
      density: share kept, in (0, 1]; 1 keeps everything.

    Returns:
      A tree of bool arrays shaped as `scores`.

    Raises:
      UserError: `density` is outside (0, 1].
    """
    return prune_smallest(scores, pruned_count(scores, density))


def prune_smallest(scores: PyTree, pruned: int | jax.Array, search: selection.Search = selection.by_platform) -> PyTree:
    """The mask that drops the `pruned` smallest |score| of the whole tree.

    Args:
      scores: pytree of float arrays, N elements in all.
      pruned: a count in 0 ... N - 1; may be traced.
      search: how to find the threshold; the mask is the same by all of them.

    Returns:
      A tree of bool arrays shaped as `scores`.
    """
    count = jnp.asarray(pruned, jnp.int32)
    return _prune(scores, count, key=selection.magnitude_rank, least=selection.LEAST_RANK, search=search)


def prune_lowest(scores: PyTree, pruned: int | jax.Array) -> PyTree:
    """The mask that drops the `pruned` lowest scores, signs included; see `prune_smallest`.

    Args:
      scores: pytree of float arrays, N elements in all.
      pruned: a count in 0 ... N - 1; may be traced.

    Returns:
      A tree of bool arrays shaped as `scores`.
    """
    return _prune(scores, jnp.asarray(pruned, jnp.int32), key=selection.order_rank, least=selection.LOWEST_RANK)


@functools.partial(jax.jit, static_argnames=("key", "least", "search"))
def _prune(
    scores: PyTree,
    pruned: jax.Array,
    *,
    key: Callable[[jax.Array], jax.Array],
    least: int,
    search: selection.Search = selection.by_platform,
) -> PyTree:
    """The mask that drops the `pruned` elements of lowest `key`, which is `least` or more."""
    leaves, structure = jax.tree.flatten(lax.stop_gradient(scores))
    total = selection.count(scores)

    def keys(leaves: list[jax.Array]) -> list[jax.Array]:
        return [key(leaf) for leaf in leaves]

    everything = selection.Bracket.of(least, selection.END, total)
    by_key = selection.Task(keys, exact=False, sampled=True, width=selection.END - least)
    bracket = search(by_key, leaves, jnp.maximum(pruned, 1), everything)

    def last_pruned() -> jax.Array:
        """The position of the last pruned score within the bracket, where all scores are equal."""

        def positions(operands: list[jax.Array]) -> list[jax.Array]:
            *leaves, first = operands
            pairs = zip(keys(leaves), _flat_indices(leaves, first), strict=True)
            return [jnp.where(leaf_keys == bracket.low, index, total) for leaf_keys, index in pairs]

        ties = bracket.under_high - bracket.under_low
        anywhere = selection.Bracket.of(0, total, 0)._replace(under_high=ties)
        by_position = selection.Task(positions, exact=False, sampled=False, width=total)
        # The first position is an operand, so that XLA does not store all positions before the search's loop.
        operands = [*leaves, jnp.int32(0)]
        return search(by_position, operands, jnp.maximum(pruned - bracket.under_low, 1), anywhere).high - 1

    # Scores below the bracket are pruned. Those within it are pruned, too; if they tie, only the first ones are.
    last = lax.cond(bracket.under_high > pruned, last_pruned, lambda: jnp.int32(total))
    last = jnp.where(pruned == 0, -1, last)
    # Otherwise XLA stores all positions before a loop of training steps.
    first, last = xla.tied(jnp.int32(0), last)
    kept = [
        (leaf_keys >= bracket.high) | ((leaf_keys >= bracket.low) & (index > last))
        for leaf_keys, index in zip(keys(leaves), _flat_indices(leaves, first), strict=True)
    ]
    return jax.tree.unflatten(structure, kept)


def threshold(scores: PyTree, pruned: int | jax.Array) -> jax.Array:
    """The `pruned`-th smallest |score|, the paper's threshold.

    A NaN is above all others here, as in `numpy.partition`. Masks prune it first; so with a NaN among the scores, they
    prune others than those up to this threshold.

    Args:
      scores: pytree of float arrays, N elements in all.
      pruned: a count in 0 ... N - 1; may be traced.

    Returns:
      A scalar, as `selection.kth_smallest` gives it; 0 if nothing is pruned.
    """
    pruned = jnp.asarray(pruned, jnp.int32)
    tau = selection.kth_smallest(jax.tree.map(jnp.abs, scores), jnp.maximum(pruned, 1))
    return jnp.where(pruned == 0, jnp.zeros_like(tau), tau)


def straight_through(scores: PyTree, density: float) -> PyTree:
    """The top-k mask as floats 0 and 1, with the straight-through gradient for the scores (VPNs, section 4).

    The step function's derivative is replaced by 1, and that of |score| is kept: d scores = sign(scores) * d mask.
    So pruned weights get a gradient, too.

    Args:
      scores: pytree of float arrays, any shapes.
      density: share kept, in (0, 1].

    Returns:
      A tree shaped as `scores`, of its dtypes.

    Raises:
      UserError: `density` is outside (0, 1].
    """
    return attach_gradient(scores, topk_mask(scores, density))


def attach_gradient(scores: PyTree, mask: PyTree) -> PyTree:
    """Gives any bool mask the straight-through gradient for the scores, and their dtype; see `straight_through`."""
    return jax.tree.map(_step, scores, mask)


@jax.custom_jvp
def _step(score: jax.Array, keep: jax.Array) -> jax.Array:
    """The step function of |score| at the threshold: 1 where a weight is kept, 0 where it is pruned."""
    return keep.astype(score.dtype)


@_step.defjvp
def _step_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """The straight-through gradient: 1 for the step function, times sign(score), the derivative of |score|."""
    score, keep = primals
    return _step(score, keep), jnp.sign(score) * tangents[0]


def bilevel(scores: PyTree, weights: PyTree, mask: PyTree, gamma: float) -> PyTree:
    """The masked weights z = m * w, with the gradient of BiP's upper level for the scores.

    Args:
      scores: tree of float arrays.
      weights: tree of float arrays like `scores`.
      mask: tree of bool arrays like `scores`.
      gamma: strength of the lower level's penalty, above zero.

    Returns:
      z. With g = dl/dz, d scores = sign(scores) * (w - m g / gamma) g, see `bilevel_gradient`. The weights get no
      gradient, since the upper level does not train them.
    """
    return jax.tree.map(lambda s, w, m: _bilevel(gamma, s, w, m), scores, weights, mask)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bilevel(gamma: float, score: jax.Array, weight: jax.Array, keep: jax.Array) -> jax.Array:
    return weight * keep.astype(weight.dtype)


def _bilevel_forward(gamma: float, score: jax.Array, weight: jax.Array, keep: jax.Array) -> tuple[jax.Array, tuple]:
    return _bilevel(gamma, score, weight, keep), (score, weight, keep)


def _bilevel_backward(gamma: float, saved: tuple, gradient: jax.Array) -> tuple:
    score, weight, keep = saved
    return jnp.sign(score) * bilevel_gradient(weight, keep, gradient, gamma), None, None


_bilevel.defvjp(_bilevel_forward, _bilevel_backward)


def counted(mask: PyTree) -> PyTree:
    """Selects the kernels of a mask, which alone count for densities.

    Vectors such as biases are left out, because they are pruned together with a kernel's columns.

    Args:
      mask: any pytree of bool arrays.

    Returns:
      Its leaves with two axes or more, a nested dict.
    """
    return trees.unflatten({path: leaf for path, leaf in trees.named_leaves(mask).items() if jnp.ndim(leaf) > 1})


@jax.jit
def density(mask: PyTree) -> jax.Array:
    """The share of weights that a mask keeps, a float32 scalar; 1 for an empty mask, which prunes nothing."""
    leaves = jax.tree.leaves(mask)
    kept = sum(jnp.sum(leaf, dtype=jnp.int32) for leaf in leaves)
    return jnp.float32(kept / selection.count(mask)) if leaves else jnp.float32(1)


@jax.jit
def nonzero(weights: PyTree, mask: PyTree) -> jax.Array:
    """The share of weights that are kept and not zero.

    Args:
      weights: any pytree of arrays.
      mask: bool arrays, as for `apply`.

    Returns:
      A float32 scalar; 1 for an empty mask.

    Raises:
      UserError: the mask is of another tree.
    """
    named, masked = trees.named_leaves(weights), match(mask, weights)
    if not masked:
        return jnp.float32(1)
    counts = [jnp.sum((named[path] != 0) & keep, dtype=jnp.int32) for path, keep in masked.items()]
    return jnp.float32(sum(counts) / selection.count(mask))


def apply(weights: PyTree, mask: PyTree) -> PyTree:
    """Multiplies the weights that `mask` names by it, and leaves the others as they are.

    Args:
      weights: any pytree of arrays.
      mask: bool or float arrays: a tree like `weights`, with None where nothing is masked, or a nested dict of the
        masked leaves alone; an empty dict masks nothing.

    Returns:
      The masked weights, in the layout of `weights`.

    Raises:
      UserError: `mask` names a leaf that `weights` lacks, or has a leaf of another shape.
    """
    named, masked = trees.named_leaves(weights), match(mask, weights)
    return trees.like(weights, {p: w * masked[p].astype(w.dtype) if p in masked else w for p, w in named.items()})


def _flat_indices(leaves: list[jax.Array], first: jax.Array) -> list[jax.Array]:
    """For each leaf, the int32 positions of its elements in the concatenation of all flattened leaves."""
    indices, start = [], first
    for leaf in leaves:
        position, stride = jnp.full(leaf.shape, start, jnp.int32), 1
        for axis in range(leaf.ndim - 1, -1, -1):
            position = position + stride * lax.broadcasted_iota(jnp.int32, leaf.shape, axis)
            stride *= leaf.shape[axis]
        indices.append(position)
        start += leaf.size
    return indices
