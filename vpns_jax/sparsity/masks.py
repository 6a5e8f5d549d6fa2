"""From scores to masks: the global top-k mask, its straight-through gradient, and its use on weights.

A mask is a nested dict of bool arrays, True where a weight is kept, with leaves only where weights are prunable.

The number kept is exact, ties or not: of N scores the `pruned_count` smallest magnitudes are pruned. Scores of
equal magnitude at the threshold are pruned in the order of the tree's leaves, and within a leaf in row-major
order. (The released code prunes every score equal to the threshold; without ties both are the same.)
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from vpns_jax import xla
from vpns_jax.sparsity import selection
from vpns_jax.sparsity.density import check_density
from vpns_jax.sparsity.scores import bilevel_gradient
from vpns_jax.trees import subtree

PyTree = Any


def pruned_count(tree: PyTree, density: float) -> int:
    """How many of the tree's N elements are pruned: `int((1 - density) * N)`, the paper's k.

    Args:
      tree: pytree of arrays, N elements in all.
      density: share kept, in (0, 1].

    Raises:
      UserError: `density` is outside (0, 1].
    """
    check_density(density)
    return int((1 - density) * selection.count(tree))


def topk_mask(scores: PyTree, density: float) -> PyTree:
    """Keeps the `density` share of largest |score| over the whole tree: exactly N - int((1 - density) * N).

    Args:
      scores: pytree of float arrays, any shapes.
      density: share kept, in (0, 1]; 1 keeps everything.

    Returns:
      A tree of bool arrays shaped as `scores`.

    Raises:
      UserError: `density` is outside (0, 1].
    """
    return prune_smallest(scores, pruned_count(scores, density))


def prune_smallest(scores: PyTree, pruned: int | jax.Array | dict[str, Any]) -> PyTree:
    """The mask that drops the `pruned` smallest |score|, over the whole tree or, given a tree of counts, in each leaf.

    Args:
      scores: nested dict of float arrays, N elements in all.
      pruned: in 0 ... N - 1; or a tree like `scores` of such counts, one for each leaf. Counts may be traced.
    """
    if isinstance(pruned, dict):
        return jax.tree.map(prune_smallest, scores, pruned)
    return _prune_smallest(scores, jnp.asarray(pruned, jnp.int32))


def prune_lowest(scores: PyTree, pruned: int | jax.Array) -> PyTree:
    """The mask that drops the `pruned` lowest scores, sign and all; see `prune_smallest`."""
    return _prune(scores, jnp.asarray(pruned, jnp.int32), key=selection.order_key, least=selection.LOWEST)


@functools.partial(jax.jit, static_argnames="search")
def _prune_smallest(scores: PyTree, pruned: jax.Array, search: selection.Search = selection.by_platform) -> PyTree:
    return _prune(scores, pruned, key=selection.magnitude_key, least=0, search=search)


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
    by_key = selection.Task(keys, exact=False, sampled=True)
    found = search(by_key, leaves, jnp.maximum(pruned, 1), everything)

    def last_pruned() -> jax.Array:
        """The position of the last of those within the bracket that are pruned: they are all equal."""

        def positions(operands: list[jax.Array]) -> list[jax.Array]:
            *leaves, first = operands
            pairs = zip(keys(leaves), _flat_indices(leaves, first), strict=True)
            return [jnp.where(one == found.low, index, total) for one, index in pairs]

        ties = found.under_high - found.under_low
        anywhere = selection.Bracket.of(0, total, 0)._replace(under_high=ties)
        by_position = selection.Task(positions, exact=False, sampled=False)
        # The first position is an operand, so that XLA does not store all positions ahead of the search's loop.
        operands = [*leaves, jnp.int32(0)]
        return search(by_position, operands, jnp.maximum(pruned - found.under_low, 1), anywhere).high - 1

    # What lies below the bracket is pruned, and what lies in it too, or of ties the first.
    last = lax.cond(found.under_high > pruned, last_pruned, lambda: jnp.int32(total))
    last = jnp.where(pruned == 0, -1, last)
    # Or XLA stores all positions ahead of a loop of training steps.
    first, last = xla.tied(jnp.int32(0), last)
    kept = [
        (one >= found.high) | ((one >= found.low) & (index > last))
        for one, index in zip(keys(leaves), _flat_indices(leaves, first), strict=True)
    ]
    return jax.tree.unflatten(structure, kept)


def threshold(scores: PyTree, pruned: int | jax.Array) -> jax.Array:
    """The `pruned`-th smallest |score|, the paper's threshold; 0 if nothing is pruned."""
    pruned = jnp.asarray(pruned, jnp.int32)
    tau = selection.kth_smallest(jax.tree.map(jnp.abs, scores), jnp.maximum(pruned, 1))
    return jnp.where(pruned == 0, jnp.zeros_like(tau), tau)


def straight_through(scores: PyTree, density: float) -> PyTree:
    """The top-k mask as float 0/1 that passes its gradient straight to the scores (VPNs, section 4).

    The step's derivative is taken as one and the magnitude's as it is: d scores = sign(scores) * d mask, so
    pruned weights are told, too, how the loss would like them.
    """
    return attach_gradient(scores, topk_mask(scores, density))


def attach_gradient(scores: PyTree, mask: PyTree) -> PyTree:
    """`mask` (bool) as floats of the scores' dtype, whose gradient goes straight through to |scores|."""
    return jax.tree.map(_step, scores, mask)


@jax.custom_jvp
def _step(score: jax.Array, keep: jax.Array) -> jax.Array:
    return keep.astype(score.dtype)


@_step.defjvp
def _step_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    score, keep = primals
    return _step(score, keep), jnp.sign(score) * tangents[0]


def bilevel(scores: PyTree, weights: PyTree, mask: PyTree, gamma: float) -> PyTree:
    """z = m * w, whose gradient in the scores is the mask's in BiP's upper level, straight through to |scores|.

    Args:
      scores, weights, mask: trees of one structure; `mask` is bool.
      gamma: strength of the lower level's penalty, above zero.

    Returns:
      The masked weights. With g = dl/dz, d scores = sign(scores) * (w - m g / gamma) g (`bilevel_gradient`), and the
      weights get no gradient: the upper level holds them.
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


@jax.jit
def density(mask: PyTree) -> jax.Array:
    """The share kept, a float32 scalar; 1 for an empty mask, which masks nothing."""
    leaves = jax.tree.leaves(mask)
    kept = sum(jnp.sum(leaf, dtype=jnp.int32) for leaf in leaves)
    return jnp.float32(kept / selection.count(mask)) if leaves else jnp.float32(1)


@jax.jit
def nonzero(weights: PyTree, mask: PyTree) -> jax.Array:
    """The share of weights that are kept and not zero, a float32 scalar; 1 for an empty mask.

    Args:
      weights: nested dict of arrays.
      mask: nested dict of bool arrays, a subtree of `weights`.
    """
    leaves = jax.tree.leaves(mask)
    if not leaves:
        return jnp.float32(1)
    found = jax.tree.map(lambda w, m: jnp.sum((w != 0) & m, dtype=jnp.int32), subtree(weights, mask), mask)
    return jnp.float32(sum(jax.tree.leaves(found)) / selection.count(mask))


def apply(weights: PyTree, mask: PyTree) -> PyTree:
    """`weights` with every leaf that `mask` names multiplied by it; the others as they are.

    Args:
      weights: nested dict of arrays.
      mask: nested dict of bool or float arrays, a subtree of `weights`; an empty dict masks nothing.

    Raises:
      ValueError: `mask` has a key that `weights` lacks, or a leaf of another shape.
    """
    return _apply(weights, mask, ())


def _apply(weights: PyTree, mask: PyTree, path: tuple[str, ...]) -> PyTree:
    where = "/".join(path) or "the top level"
    if not isinstance(mask, dict):
        if jnp.shape(weights) != jnp.shape(mask):
            raise ValueError(f"mask at {where} has shape {jnp.shape(mask)}, the weight {jnp.shape(weights)}")
        return weights * mask.astype(weights.dtype)
    if not isinstance(weights, dict):
        raise ValueError(f"mask has a branch at {where}, where the weights have an array")
    unknown = mask.keys() - weights.keys()
    if unknown:
        raise ValueError(f"mask names {sorted(unknown)} at {where}; the weights have {sorted(weights)}")
    return {key: _apply(value, mask[key], (*path, key)) if key in mask else value for key, value in weights.items()}


def _flat_indices(leaves: list[jax.Array], first: jax.Array) -> list[jax.Array]:
    """For each leaf the row-major position of its elements in the concatenation of all leaves, int32."""
    indices, start = [], first
    for leaf in leaves:
        position, stride = jnp.full(leaf.shape, start, jnp.int32), 1
        for axis in range(leaf.ndim - 1, -1, -1):
            position = position + stride * lax.broadcasted_iota(jnp.int32, leaf.shape, axis)
            stride *= leaf.shape[axis]
        indices.append(position)
        start += leaf.size
    return indices
