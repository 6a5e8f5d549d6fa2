"""Trees of weights: "/"-joined paths of leaves, globs over paths, and subtrees."""

import difflib
import fnmatch
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from flax import traverse_util

from vpns_jax.errors import LONGEST, UserError, several, shorten

PyTree = Any


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of a nested dict by "/"-joined path, in the tree's order."""
    return traverse_util.flatten_dict(dict(tree), sep="/")


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict whose `flatten` is `leaves`."""
    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def matches(path: str, pattern: str) -> bool:
    """Whether a glob matches a path or a module that contains it; see `select`."""
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"{pattern}/*")


def select(paths: Iterable[str], patterns: Sequence[str], *, what: str) -> set[str]:
    """The paths that match any of several patterns.

    Args:
      paths: "/"-joined paths.
      patterns: globs over whole paths (`fnmatch`, case-sensitive, `*` also matches "/"). A pattern that names a module
        covers all paths in it: "head" means "head/*".
      what: the argument's name for errors.

    Returns:
      The matching paths.

    Raises:
      UserError: a pattern matches no path (the error lists the paths, or the most similar ones of many), or `patterns`
        is a string.
    """
    if isinstance(patterns, str):
        raise UserError(f"{what} must be a sequence of patterns, got the string {patterns!r}")
    known = list(paths)
    chosen: set[str] = set()
    for pattern in patterns:
        hits = {path for path in known if matches(path, pattern)}
        if not hits:
            there = f"available: {', '.join(known)}"
            if len(there) > LONGEST // 2:
                nearest = difflib.get_close_matches(pattern, known, n=3, cutoff=0)
                there = f"nearest of {len(known)} (--verbose lists all): {several(nearest)}"
            raise UserError(f"{what} pattern {shorten(pattern, 50)!r} matches nothing; {there}", details=known)
        chosen |= hits
    return chosen


def narrow(paths: Sequence[str], *, include: Sequence[str], exclude: Sequence[str]) -> set[str]:
    """The paths that are included and not excluded; see `select`.

    Args:
      paths: "/"-joined paths.
      include: globs; if there are any, only paths that match one of them are taken.
      exclude: globs of paths to leave out.

    Returns:
      The paths, at least one.

    Raises:
      UserError: a pattern matches no path, or no path is left.
    """
    kept = select(paths, include, what="include") if include else set(paths)
    kept -= select(paths, exclude, what="exclude")
    if not kept:
        raise UserError(f"no kernel is left to prune: include={list(include)}, exclude={list(exclude)}")
    return kept


def subtree(tree: PyTree, like: PyTree) -> PyTree:
    """The leaves of `tree` that `like` has, in the layout of `like`; both are nested dicts."""
    if not isinstance(like, dict):
        return tree
    return {key: subtree(tree[key], branch) for key, branch in like.items()}


def overlay(tree: PyTree, part: PyTree) -> PyTree:
    """`tree` with the leaves of `part`, which has some of its paths, in place of its own; both are any pytrees."""
    return like(tree, named_leaves(tree) | named_leaves(part))


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves of any pytree by "/"-joined path, in the tree's order; for nested dicts it is `flatten`.

    An array in a Flax NNX variable has the path of the variable, since optimizers see it with and without one.

    Args:
      tree: any pytree.

    Returns:
      The leaves; None is no leaf.
    """
    named: dict[str, Any] = {}
    for path, node in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_variable)[0]:
        # A variable has one child, `value`. Other modules may have an array of that name, too, which is not left out.
        inner = jax.tree_util.tree_flatten_with_path(node)[0] if _is_variable(node) else [((None,), node)]
        named |= {_joined((*path, *rest)): leaf for (_, *rest), leaf in inner}
    return named


def like(tree: PyTree, leaves: Mapping[str, Any]) -> PyTree:
    """A tree with the structure of `tree` and with other leaves.

    Args:
      tree: any pytree.
      leaves: leaves by "/"-joined path, as `named_leaves` gives them.

    Returns:
      The tree; None stands where `leaves` has nothing.
    """
    return jax.tree.unflatten(jax.tree.structure(tree), [leaves.get(path) for path in named_leaves(tree)])


def is_traced(tree: PyTree) -> bool:
    """Whether the values of a tree are unknown, because `jax.jit` or another transformation traces them."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def is_outputs_first(path: str) -> bool:
    """Whether an array is [out, in, ...], as PyTorch's and Equinox's `weight`; all others are [..., in, out]."""
    return path.rsplit("/", 1)[-1] == "weight"


def _is_variable(node: Any) -> bool:
    """Whether a node is a variable of Flax NNX, which is imported only by programs that use it."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(node, nnx.Variable)


def _joined(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
