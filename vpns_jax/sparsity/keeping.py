"""Masks in any optimizer: an optax transformation under which pruned weights are zero and stay zero."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vpns_jax import trees
from vpns_jax.errors import UserError
from vpns_jax.sparsity import bits
from vpns_jax.sparsity.matching import match_bool, zero_pruned

PyTree = Any


class KeepMaskState(NamedTuple):
    """The state of `keep_mask`.

    Attributes:
      mask: nested dict of `Bits`, with the paths of the weights.
      inner: the state of the optimizer.
    """

    mask: PyTree
    inner: Any


def keep_mask(tx: optax.GradientTransformation, mask: PyTree) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that pruned weights are exactly zero after every update.

    The optimizer sees zeros for pruned weights and for their gradients. So clipping, moments and decay know the kept
    weights alone. Whatever it then answers, the update of a pruned weight w is -w, and w + (-w) is exactly zero if w
    is finite. The first update thus prunes the weights, if that was not done before.

    Wrap the whole optimizer: nothing may change the updates afterwards. `optax.MultiSteps` may stand outside or inside.
    Keep float32 weights if the network computes in lower precision; the mask is for the weights that are updated.

    Args:
      tx: the optimizer, such as `optax.adamw(1e-3)`.
      mask: bool arrays, True where a weight is kept: a tree like the weights, with None where nothing is masked, or a
        nested dict of the masked leaves alone.

    Returns:
      An optimizer. Its state holds the mask as bits; this one, and not `mask`, is used after a checkpoint is restored.

    Raises:
      UserError: (when it is initialized) the mask is of another tree than the weights.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params: PyTree) -> KeepMaskState:
        keep = match_bool(mask, params)
        # Packed at once, even under jit: XLA would take seconds to pack constants while it compiles.
        with jax.ensure_compile_time_eval():
            packed = stored(keep)
        return KeepMaskState(packed, inner.init(zero_pruned(params, keep)))

    def update(
        updates: PyTree, state: KeepMaskState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, KeepMaskState]:
        params = given(params, "keep_mask")
        keep = read(state.mask)
        updates, after = inner.update(zero_pruned(updates, keep), state.inner, zero_pruned(params, keep), **extra)
        return to_zero(updates, params, keep), KeepMaskState(state.mask, after)

    return optax.GradientTransformationExtraArgs(init, update)


def stored(keep: Mapping[str, jax.Array]) -> PyTree:
    """Packs a mask for an optimizer's state.

    Args:
      keep: bool arrays by path.

    Returns:
      A nested dict of `Bits`: plain containers, whatever the weights' are.
    """
    return bits.pack(trees.unflatten(keep))


def read(packed: PyTree) -> dict[str, jax.Array]:
    """Unpacks a mask.

    Args:
      packed: from `stored`.

    Returns:
      Bool arrays by path.
    """
    return trees.named_leaves(bits.unpack(packed))


def to_zero(updates: PyTree, params: PyTree, keep: Mapping[str, jax.Array]) -> PyTree:
    """Replaces the updates of pruned weights by those that make them zero.

    Args:
      updates: what an optimizer wants to add to the weights.
      params: the weights.
      keep: bool arrays by path.

    Returns:
      A tree like `updates`.
    """
    weights = trees.named_leaves(params)
    named = trees.named_leaves(updates)
    return trees.like(updates, {p: jnp.where(keep[p], u, -weights[p]) if p in keep else u for p, u in named.items()})


def given(params: PyTree | None, name: str) -> PyTree:
    """Checks that an optimizer was given the weights.

    Args:
      params: the weights, or None.
      name: the transformation, for the error.

    Returns:
      The weights.

    Raises:
      UserError: they are None.
    """
    if params is None:
        raise UserError(f"{name} needs the weights: call tx.update(gradients, state, params)")
    return params
