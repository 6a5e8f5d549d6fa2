"""Parts of a tree of weights: the kernels that may be pruned, taken out and put back."""

from typing import Any

PyTree = Any


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
