"""Learned masks of any model in any loop: losses of scores, or of weights of which the largest are used."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from vpns_jax.sparsity import masks
from vpns_jax.sparsity.choosing import check_some
from vpns_jax.sparsity.choosing import prunable as all_prunable
from vpns_jax.sparsity.pattern import SINGLE, Pattern

PyTree = Any


def with_scores(
    loss_fn: Callable[..., Any],
    params: PyTree,
    density: float,
    *,
    pattern: Pattern = SINGLE,
    prunable: Callable[[PyTree], PyTree] = all_prunable,
) -> Callable[..., Any]:
    """Turns a loss of weights into one of scores: the weights are frozen, and the largest |score| keep theirs.

    The gradient passes straight through the mask, so scores of pruned weights learn, too. This is HYDRA and, with a
    prompt that is learned beside the scores, stage 1 of VPNs. Start from `first_scores`; after training, the mask is
    `topk_mask(scores, density)` or, with any pattern, `pattern.mask(kept, params)` with `kept = pattern.select(scores,
    pattern.amount(prunable(params), density))`. Call this within the jitted step and give the step the weights as an
    argument; otherwise they become constants of the program.

    Args:
      loss_fn: a function of the weights and of anything else, such as (params, prompt, batch).
      params: the weights, any pytree of arrays.
      density: the share kept, in (0, 1].
      pattern: what masks may look like.
      prunable: gives the part of the weights that may be pruned.

    Returns:
      A function of scores, a tree like that of `first_scores`, and of anything else; it returns what `loss_fn` does.

    Raises:
      UserError: nothing may be pruned, or the density or the pattern does not suit the weights.
    """
    amount = pattern.amount(prunable(params), density)

    def loss_of_scores(scores: PyTree, *args: Any, **kwargs: Any) -> Any:
        straight = masks.attach_gradient(scores, pattern.select(scores, amount))
        return loss_fn(masks.apply(params, pattern.gate(straight, params)), *args, **kwargs)

    return loss_of_scores


def with_largest(
    loss_fn: Callable[..., Any],
    density: float,
    *,
    pattern: Pattern = SINGLE,
    prunable: Callable[[PyTree], PyTree] = all_prunable,
) -> Callable[..., Any]:
    """Turns a loss of weights into one whose forward pass sees only the largest of them, while all of them are trained.

    The mask is made anew in each call, and the gradient passes straight through it: pruned weights get that of the loss
    at the masked weights, and may come back. So the weights stay dense; after training, apply the mask:
    `topk_mask(prunable(params), density)` or, with any pattern, `pattern.mask(kept, params)` with `kept =
    pattern.select(pattern.magnitude(kernels), pattern.amount(kernels, density))` and `kernels = prunable(params)`.

    Args:
      loss_fn: a function of the weights and of anything else, such as (params, batch).
      density: the share kept, in (0, 1].
      pattern: what masks may look like.
      prunable: gives the part of the weights that may be pruned.

    Returns:
      A function of the same arguments, which returns what `loss_fn` does.

    Raises:
      UserError: (when it is called) nothing may be pruned, or the density or the pattern does not suit the weights.
    """

    def loss_of_largest(params: PyTree, *args: Any, **kwargs: Any) -> Any:
        kernels = prunable(params)
        keep = pattern.select(pattern.magnitude(kernels), pattern.amount(kernels, density))
        masked = masks.apply(params, pattern.mask(keep, params))
        straight = jax.tree.map(lambda w, m: w + lax.stop_gradient(m - w), params, masked)
        return loss_fn(straight, *args, **kwargs)

    return loss_of_largest


def first_scores(
    params: PyTree, *, pattern: Pattern = SINGLE, prunable: Callable[[PyTree], PyTree] = all_prunable
) -> PyTree:
    """Makes the scores that learning starts from: the weights, scaled in each layer (HYDRA, arXiv 2002.10509).

    Args:
      params: the weights, any pytree of arrays.
      pattern: what masks may look like.
      prunable: gives the part of the weights that may be pruned.

    Returns:
      A tree like `prunable(params)`; for channels, one of vectors.

    Raises:
      UserError: nothing may be pruned, or the granularity does not suit the weights.
      ValueError: the pattern does not know the channels of a kernel.
    """
    kernels = prunable(params)
    check_some(kernels)
    return pattern.first_scores(kernels)
