"""Trees of weights: leaves by their "/"-joined paths, globs over paths, and subtrees taken out and put back."""

import difflib
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flax import traverse_util

from vpns_jax.errors import LONGEST, UserError, several, shorten

PyTree = Any


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves by "/"-joined path, in the tree's order."""
    return traverse_util.flatten_dict(dict(tree), sep="/")


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict whose `flatten` is `leaves`."""
    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def matches(path: str, pattern: str) -> bool:
    """Whether a glob matches a path, or names a module that it is in; see `select`."""
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"{pattern}/*")


def select(paths: Iterable[str], patterns: Sequence[str], *, what: str) -> set[str]:
    """The paths that match any pattern.

    A pattern is a glob (`fnmatch`, case-sensitive, `*` crosses "/") over whole paths; one that names a module
    covers everything in it: "head" is "head/*". `what` names the argument in the error.

    Raises:
      UserError: if a pattern matches no path; names those there are, or of many those most like it.
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
    """The leaves of `tree` (nested dicts) that `like` has, in the layout of `like`."""
    if not isinstance(like, dict):
        return tree
    return {key: subtree(tree[key], branch) for key, branch in like.items()}


def overlay(tree: PyTree, part: PyTree) -> PyTree:
    """`tree` (nested dicts) with the leaves that `part` has taken from there."""
    if not isinstance(part, dict):
        return part
    return {key: overlay(value, part[key]) if key in part else value for key, value in tree.items()}
