"""Operations that only move elements.

Where channels are taken apart or put in another order, they are fixed, even if they come together again: with fewer
channels, the network's code would do so at other places.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from vpns_jax.models.tracing import places
from vpns_jax.models.tracing.scene import Scene
from vpns_jax.models.tracing.values import Value


def reshape(scene: Scene, value: Value, shape: tuple[int, ...]) -> Value:
    """Describes `lax.reshape`, and the removal of axes of size 1.

    Args:
      scene: the operation.
      value: its operand.
      shape: the result's shape.

    Returns:
      The result.
    """
    order = scene.params.get("dimensions") if scene.name == "reshape" else None
    if order is not None:
        value = _permuted(scene, value, tuple(value.shape[axis] for axis in order), order)
    return value.moved(shape, lambda where: places.reshape(where, value.shape, shape))


def transpose(scene: Scene, value: Value, shape: tuple[int, ...]) -> Value:
    """Describes `lax.transpose`.

    Args:
      scene: the operation.
      value: its operand.
      shape: the result's shape.

    Returns:
      The result.
    """
    return _permuted(scene, value, shape, scene.params["permutation"])


def _permuted(scene: Scene, value: Value, shape: tuple[int, ...], order: Sequence[int]) -> Value:
    """The array with its axes in another order."""
    for label in value.labels:
        along = [axis for axis in order if axis in label.axes]
        if along != sorted(along):
            scene.spaces.fix_all([label], f"{scene} puts its channels in another order")
    return value.moved(shape, lambda where: where.transpose(order))


def broadcast(scene: Scene, value: Value, shape: tuple[int, ...]) -> Value:
    """Describes `lax.broadcast_in_dim`.

    Args:
      scene: the operation.
      value: its operand.
      shape: the result's shape.

    Returns:
      The result.
    """
    axes = scene.params["broadcast_dimensions"]
    # Nothing is doubled where all new axes have size 1.
    whole = np.prod(shape) == np.prod(value.shape)
    moved = value.moved(shape, lambda where: places.broadcast(where, shape, axes), whole=bool(whole))
    same = {i for i in range(len(shape)) if i not in axes or value.shape[axes.index(i)] < shape[i]}
    same |= {axes[i] for i in value.equal}
    moved = dataclasses.replace(moved, equal=frozenset(same))
    if value.total is None:
        return moved
    layout = tuple(value.total.layout[axes.index(i)] if i in axes else None for i in range(len(shape)))
    return dataclasses.replace(moved, total=value.total._replace(layout=layout))


def cut(scene: Scene, value: Value, shape: tuple[int, ...]) -> Value:
    """Describes `lax.slice`.

    Args:
      scene: the operation.
      value: its operand.
      shape: the result's shape.

    Returns:
      The result.
    """
    starts, limits = scene.params["start_indices"], scene.params["limit_indices"]
    steps = scene.params["strides"] or [1] * len(shape)
    ranges = [slice(*each) for each in zip(starts, limits, steps, strict=True)]

    def move(where: np.ndarray) -> np.ndarray:
        return where[tuple(each if n > 1 else slice(None) for each, n in zip(ranges, where.shape, strict=True))]

    return _part(
        scene, value, value.moved(shape, lambda where: places.compress(move(where)), whole=shape == value.shape)
    )


def split(scene: Scene, value: Value, shapes: Sequence[tuple[int, ...]]) -> list[Value]:
    """Describes `lax.split`.

    Args:
      scene: the operation.
      value: its operand.
      shapes: the results' shapes.

    Returns:
      The results.
    """
    axis, ends = scene.params["axis"], np.cumsum(scene.params["sizes"])

    def move(where: np.ndarray, end: int, size: int) -> np.ndarray:
        if where.shape[axis] == 1:
            return where
        return places.compress(np.take(where, np.arange(end - size, end), axis=axis))

    parts = []
    for shape, end in zip(shapes, ends, strict=True):
        take = functools.partial(move, end=int(end), size=shape[axis])
        parts.append(_part(scene, value, value.moved(shape, take, whole=len(shapes) == 1)))
    return parts


def reverse(scene: Scene, value: Value, shape: tuple[int, ...]) -> Value:
    """Describes `lax.rev`.

    Args:
      scene: the operation.
      value: its operand.
      shape: the result's shape.

    Returns:
      The result.
    """
    axes = scene.params["dimensions"]
    turned = [label for label in value.labels if label.axes & set(axes)]
    scene.spaces.fix_all(turned, f"{scene} puts its channels in another order")
    return value.moved(shape, lambda where: np.flip(where, axes))


def _part(scene: Scene, value: Value, part: Value) -> Value:
    """A part of an array."""
    apart = frozenset(i for i, (n, left) in enumerate(zip(value.shape, part.shape, strict=True)) if n != left)
    labels = [label for label in value.labels if label.axes & apart]
    scene.spaces.fix_all(labels, f"{scene} takes its channels apart")
    return part
