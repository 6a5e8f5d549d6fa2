"""Arrays of numbers, one for each element of a traced array, that are stored only as large as they vary.

An axis along which all numbers are equal has size 1. The channels of a feature map [2, 224, 224, 64] are so stored as
[1, 1, 1, 64]. Operations that only move elements are applied to such arrays as they are applied to the traced ones.
"""

import math
from collections.abc import Sequence

import numpy as np

Shape = tuple[int, ...]


def along(axis: int, shape: Shape) -> np.ndarray:
    """Numbers that count along one axis.

    Args:
      axis: the axis.
      shape: the traced array's shape.

    Returns:
      An int array, stored as size 1 along all other axes.
    """
    return np.arange(shape[axis]).reshape([n if i == axis else 1 for i, n in enumerate(shape)])


def varied(places: np.ndarray) -> frozenset[int]:
    """The axes along which the numbers differ."""
    return frozenset(i for i, n in enumerate(places.shape) if n > 1)


def compress(places: np.ndarray) -> np.ndarray:
    """Stores each axis along which all numbers are equal with size 1."""
    for axis, n in enumerate(places.shape):
        first = np.take(places, [0], axis=axis) if n > 1 else places
        if n > 1 and (places == first).all():
            places = first
    return places


def spread(places: np.ndarray, shape: Shape, axes: Sequence[int] | frozenset[int]) -> np.ndarray:
    """Stores some axes in full.

    Args:
      places: the numbers.
      shape: the traced array's shape.
      axes: the axes.

    Returns:
      The numbers, not compressed along `axes`.
    """
    return np.broadcast_to(places, [n if i in axes else places.shape[i] for i, n in enumerate(shape)])


def reshape(places: np.ndarray, old: Shape, new: Shape) -> np.ndarray:
    """Reshapes as the traced array is reshaped.

    Args:
      places: the numbers.
      old: the traced array's shape.
      new: its new shape.

    Returns:
      The numbers.
    """
    full: set[int] = set()
    target: list[int] = []
    for before, after in _blocks(old, new):
        if any(places.shape[i] > 1 for i in before):
            full.update(before)
            target += [new[i] for i in after]
        else:
            target += [1] * len(after)
    return compress(spread(places, old, frozenset(full)).reshape(target))


def broadcast(places: np.ndarray, new: Shape, axes: Sequence[int]) -> np.ndarray:
    """Broadcasts as `lax.broadcast_in_dim` does.

    Args:
      places: the numbers.
      new: the new shape.
      axes: where each old axis goes.

    Returns:
      The numbers.
    """
    target = [1] * len(new)
    for old, axis in enumerate(axes):
        target[axis] = places.shape[old]
    return places.reshape(target)


def _blocks(old: Shape, new: Shape) -> list[tuple[range, range]]:
    """Pairs neighboring axes of two shapes, as few at a time as have the same product."""
    if math.prod(old) == 0:
        return [(range(len(old)), range(len(new)))]
    blocks, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        first, start, here, there = i, j, 1, 1
        if i < len(old):
            here, i = old[i], i + 1
        if j < len(new):
            there, j = new[j], j + 1
        while here != there:
            if here < there:
                here, i = here * old[i], i + 1
            else:
                there, j = there * new[j], j + 1
        blocks.append((range(first, i), range(start, j)))
    return blocks
