"""Masks that were given, and not made here: whether they keep whole groups, and how many."""

from typing import Any

from vpns_jax import trees
from vpns_jax.errors import UserError
from vpns_jax.sparsity import n_of_m
from vpns_jax.sparsity.pattern import Pattern

PyTree = Any


def pruned_by(kept: PyTree, pattern: Pattern, name: str) -> int | tuple[int, ...]:
    """Counts the groups that a mask prunes.

    Args:
      kept: a tree of bool like `pattern.scored`, of JAX's or NumPy's arrays.
      pattern: what masks may look like.
      name: the mask's name, for the error.

    Returns:
      A number or a tuple of them, to be compared with `pattern.amount`.

    Raises:
      UserError: the mask keeps a part of a group; or, for N:M, not N of every M weights.
    """
    ranking, ratio = pattern.ranking, pattern.granularity.n_of_m
    masks, numbers = list(trees.named_leaves(kept).items()), []
    for layer in ranking.layers(kept):
        # What `select` ranks is not coupled: each layer is one array.
        (position,), (groups,) = layer.leaves, layer.kernels
        path, keep = masks[position]
        if ratio:
            n, m = ratio
            whole = n_of_m.split(keep, m).sum(axis=-2) == n
        else:
            view = keep.reshape(groups.view)
            alive = view.any(axis=groups.within)
            whole = view.all(axis=groups.within) == alive
            numbers.append(groups.number - int(alive.sum()))
        if not whole.all():
            raise UserError(f"{name} does not keep whole groups of granularity {pattern.granularity}: {path}")
    if ratio:
        n, m = ratio
        return m - n
    return sum(numbers) if ranking.allocation == "global" else tuple(numbers)
