"""Which parameters of a network may be pruned."""

from collections.abc import Mapping, Sequence
from typing import Any

from vpns_jax import trees


def prunable(params: Mapping[str, Any], *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> dict[str, Any]:
    """The subtree of the leaves that may be pruned: every leaf called `kernel`.

    In all networks here these are the kernels of convolutions and dense layers, with shortcuts, patch embedding,
    attention projections and the head. Biases, normalization, class token and position embeddings are never pruned.
    The last axis of a kernel is its output: fan_in = prod(shape[:-1]).

    Args:
      params: a model's `params` collection (arrays or shapes).
      include: globs over "/"-joined paths, such as "layer4_*" or "*/attention/*"; if any are given, only
        kernels that match one of them are taken. A pattern that names a module covers all kernels in it.
      exclude: globs of kernels to leave out, such as "head".

    Returns:
      A nested dict in the layout of `params`, without empty branches.

    Raises:
      UserError: a pattern matches no kernel (the error lists the kernels), or no kernel is left.
    """
    kernels = {p: leaf for p, leaf in trees.flatten(params).items() if p.rsplit("/", 1)[-1] == "kernel"}
    kept = trees.narrow(list(kernels), include=include, exclude=exclude)
    return trees.unflatten({p: leaf for p, leaf in kernels.items() if p in kept})
