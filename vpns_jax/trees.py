"""Trees of weights: "/"-joined paths of leaves, globs over paths, and subtrees."""

import difflib
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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


def subtree(tree: PyTree, like: PyTree) -> PyTree:
    """The leaves of `tree` that `like` has, in the layout of `like`; both are nested dicts."""
    if not isinstance(like, dict):
        return tree
    return {key: subtree(tree[key], branch) for key, branch in like.items()}


def overlay(tree: PyTree, part: PyTree) -> PyTree:
    """`tree` with the leaves of `part`, a subtree of it, in place of its own; both are nested dicts."""
    if not isinstance(part, dict):
        return part
    return {key: overlay(value, part[key]) if key in part else value for key, value in tree.items()}
