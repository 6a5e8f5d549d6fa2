"""Masks that move while weights are trained, in any optimizer: an optax transformation."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from vpns_jax import trees
from vpns_jax.errors import UserError
from vpns_jax.sparsity.bits import unpack
from vpns_jax.sparsity.choosing import prunable as all_prunable
from vpns_jax.sparsity.keeping import KeepMaskState, given, read, stored, to_zero
from vpns_jax.sparsity.matching import match_bool, zero_pruned
from vpns_jax.sparsity.pattern import SINGLE, Pattern
from vpns_jax.sparsity.rules import Now, Rule

PyTree = Any


class GradualState(NamedTuple):
    """The state of `gradual`.

    Attributes:
      mask: nested dict of `Bits`, with the paths of the weights.
      step: the number of updates, an int32 scalar.
      inner: the state of the optimizer.
    """

    mask: PyTree
    step: jax.Array
    inner: Any


def gradual(
    tx: optax.GradientTransformation,
    density: float,
    rule: Rule,
    *,
    pattern: Pattern = SINGLE,
    prunable: Callable[[PyTree], PyTree] = all_prunable,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that a mask moves while it trains; pruned weights are exactly zero after every update.

    That is so if they are finite, as in `keep_mask`.

    Where a move is due, it comes first, by the weights and gradient that the update is given. Then the optimizer
    updates what is kept, as in `keep_mask`; weights that just grew stay zero in this update. Moments of pruned weights
    are cleared wherever a part of the optimizer's state has the weights' structure.

    Args:
      tx: the optimizer, such as `optax.adamw(1e-3)`; the whole one, as for `keep_mask`.
      density: the share kept in the end, in (0, 1].
      rule: `GradualMagnitude`, `RigL` or `SET`.
      pattern: what masks may look like.
      prunable: gives the part of the weights that may be pruned; `functools.partial(sparsity.prunable, exclude=...)`.

    Returns:
      An optimizer, which compiles once for all steps. `current_mask` reads the mask from its state.

    Raises:
      UserError: (when it is initialized) the density or the pattern does not suit the weights or the rule.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params: PyTree) -> GradualState:
        kernels = prunable(params)
        rule.amounts(pattern, kernels, density)
        keep = match_bool(pattern.mask(rule.start(pattern, kernels, density), params), params)
        return GradualState(stored(keep), jnp.int32(0), inner.init(zero_pruned(params, keep)))

    # A program of its own outside of `jax.jit`, too, where a new `cond` would be compiled at each call.
    @jax.jit
    def moved(params: PyTree, updates: PyTree, mask: PyTree, step: jax.Array) -> PyTree:
        kernels = prunable(params)
        amounts = rule.amounts(pattern, kernels, density)

        def move() -> PyTree:
            amount = jax.tree.map(lambda rows: jnp.asarray(rows)[rule.moves.number(step)], amounts)
            gradient = trees.like(kernels, trees.named_leaves(updates))
            now = _now(pattern, kernels, gradient, read(mask), step)
            return stored(match_bool(pattern.mask(rule.move(pattern, now, amount), params), params))

        return lax.cond(rule.moves.due(step), move, lambda: mask)

    def update(
        updates: PyTree, state: GradualState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, GradualState]:
        params = given(params, "gradual")
        mask = moved(params, updates, state.mask, state.step)
        # Bytes at a time. Moments are cleared at every step, in the loop that updates them. As outputs of the `cond`,
        # they would be copied at every step.
        keep = read(jax.tree.map(jnp.bitwise_and, state.mask, mask))
        moments = _clear(state.inner, params, keep)
        updates, after = inner.update(zero_pruned(updates, keep), moments, zero_pruned(params, keep), **extra)
        return to_zero(updates, params, keep), GradualState(mask, optax.safe_increment(state.step), after)

    return optax.GradientTransformationExtraArgs(init, update)


def current_mask(state: PyTree, params: PyTree) -> PyTree:
    """Reads the mask from an optimizer's state.

    Args:
      state: the state of an optimizer that `keep_mask` or `gradual` wraps, or a state with such a state in it, as that
        of `optax.MultiSteps`.
      params: the weights, or their shapes.

    Returns:
      A tree of bool like `params`, with None where nothing is masked.

    Raises:
      UserError: the state holds no mask, or that of another tree.
    """
    for part in jax.tree.leaves(state, is_leaf=_holds_mask):
        if _holds_mask(part):
            return trees.like(params, match_bool(unpack(part.mask), params))
    raise UserError("the optimizer's state holds no mask: wrap the optimizer with keep_mask or gradual")


def _holds_mask(part: Any) -> bool:
    return isinstance(part, KeepMaskState | GradualState)


def _now(pattern: Pattern, kernels: PyTree, gradient: PyTree, keep: Mapping[str, jax.Array], step: jax.Array) -> Now:
    kept = trees.named_leaves(pattern.kept(trees.unflatten(keep)))
    masked = zero_pruned(kernels, keep)
    size, slope = pattern.magnitude(masked), pattern.magnitude(gradient)
    return Now(trees.like(size, kept), size, slope, step)


def _clear(state: PyTree, params: PyTree, keep: Mapping[str, jax.Array]) -> PyTree:
    """Zeros what an optimizer remembers of pruned weights, in all parts of its state that are like the weights."""
    structure: Any = jax.tree.structure(params)
    shapes = {path: jnp.shape(leaf) for path, leaf in trees.named_leaves(params).items()}

    def is_like_weights(part: PyTree) -> bool:
        return bool(jax.tree.structure(part) == structure)

    def clear(part: PyTree) -> PyTree:
        if not is_like_weights(part):
            return part
        same = {p: keep[p] for p, leaf in trees.named_leaves(part).items() if p in keep and leaf.shape == shapes[p]}
        return zero_pruned(part, same)

    return jax.tree.map(clear, state, is_leaf=is_like_weights)
