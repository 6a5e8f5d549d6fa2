"""Operations that move, join, leave out or add up elements."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from vpns_jax.models.tracing import places
from vpns_jax.models.tracing.joining import Labels, Scene, closed, groups, merged, pairs, state_of
from vpns_jax.models.tracing.values import FREE, ZERO, Label, State, Total, Value, fixed_number


def reshape(scene: Scene, value: Value, shape: tuple[int, ...]) -> Value:
    """Describes `lax.reshape`, and the removal of axes of size 1.

    Args:
      scene: the operation.
      value: its operand.
      shape: the result's shape.

    Returns:
      The result.
    """
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
    return value.moved(shape, lambda where: where.transpose(scene.params["permutation"]))


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
    return value.moved(shape, lambda where: np.flip(where, scene.params["dimensions"]))


def concatenate(scene: Scene, operands: Sequence[Value], shape: tuple[int, ...]) -> Value:
    """Describes `lax.concatenate`: along the channels' axis they lie one behind another; along others, they meet.

    Args:
      scene: the operation.
      operands: its operands.
      shape: the result's shape.

    Returns:
      The result.
    """
    axis = scene.params["dimension"]
    if not any(operand.data for operand in operands):
        return _constants(operands, shape, axis)
    labels: list[Label] = []
    # Labels along the axis belong together, though they are on different places of it.
    behind = [[label for label in operand.labels if axis in label.axes] for operand in operands]
    if any(behind):
        if max(len(each) for each in behind) > 1:
            scene.spaces.fix_all([label for each in behind for label in each], f"{scene} has them along several axes")
        else:
            labels.append(_behind(scene, operands, [each[0] if each else None for each in behind], axis))
    rest = [dataclasses.replace(o, labels=tuple(x for x in o.labels if axis not in x.axes)) for o in operands]
    for group in groups(rest):
        labels += _beside(scene, operands, group)
    return Value(shape, data=True, labels=tuple(labels))


def pad(scene: Scene, value: Value, filler: Value, shape: tuple[int, ...]) -> Value:
    """Describes `lax.pad`.

    Args:
      scene: the operation.
      value: its operand.
      filler: what is put around it.
      shape: the result's shape.

    Returns:
      The result.
    """
    config = scene.params["padding_config"]
    if any(min(each) < 0 for each in config) or not value.data:
        return lost(scene, [value], shape)
    wide = frozenset(i for i, each in enumerate(config) if max(each) > 0)
    labels = []
    for label in value.labels:
        label = closed(scene.spaces, label)
        if not filler.is_zero:
            scene.spaces.fix_all([label], f"{scene} puts numbers other than zero around them")
        along = wide & label.axes
        channels = label.channels
        for axis in along:
            low, high, inner = config[axis]
            index = np.full(shape[axis], -1)
            index[low : shape[axis] - high : inner + 1] = np.arange(value.shape[axis])
            channels = np.where(
                (index < 0).reshape([-1 if i == axis else 1 for i in range(len(shape))]),
                ZERO if filler.is_zero else FREE,
                np.take(channels, np.maximum(index, 0), axis=axis),
            )
        states = {
            space: dataclasses.replace(each, padded=True) if wide - along else each
            for space, each in label.states.items()
        }
        labels.append(dataclasses.replace(label, channels=channels, states=states))
    return Value(shape, data=True, labels=tuple(labels))


def reduce(scene: Scene, value: Value, shape: tuple[int, ...]) -> Value:
    """Describes sums, maxima and the like over axes.

    Args:
      scene: the operation.
      value: its operand.
      shape: the result's shape.

    Returns:
      The result.
    """
    axes = frozenset(int(axis) for axis in scene.params["axes"])
    if not value.data:
        constant = value.constant if scene.name == "reduce_sum" else None
        if constant is not None:
            constant = np.broadcast_to(constant, value.shape).sum(axis=tuple(axes))
            return fixed_number(shape, places.compress(constant))
        return Value(shape, sources=dict.fromkeys((path, 0) for path in value.paths))
    number = np.prod([value.shape[axis] for axis in axes])
    labels = []
    for label in value.labels:
        label = closed(scene.spaces, label)
        if label.axes & axes:
            scene.spaces.fix_all([label], f"{scene} mixes them")
            continue
        channels = label.channels.squeeze(tuple(axes))
        states = {space: _reduced(scene.name, each, int(number)) for space, each in label.states.items()}
        labels.append(Label(channels, states, label.width))
    layout = tuple(i for i in range(len(value.shape)) if i not in axes)
    total = Total(value, axes, layout) if scene.name == "reduce_sum" else None
    return Value(shape, data=True, labels=tuple(labels), total=total)


def window(scene: Scene, value: Value, shape: tuple[int, ...]) -> Value:
    """Describes pooling: `lax.reduce_window` with a maximum, a minimum or a sum.

    Args:
      scene: the operation.
      value: its operand.
      shape: the result's shape.

    Returns:
      The result.
    """
    params = scene.params
    sizes = params["window_dimensions"]
    wide = frozenset(i for i in range(len(shape)) if sizes[i] > 1 or shape[i] != value.shape[i])
    padded = any(n > 0 for pads in params["padding"] for n in pads)
    dilated = any(n > 1 for n in params["base_dilation"])
    kind = scene.name.replace("window_", "")
    labels = []
    for label in value.labels:
        label = closed(scene.spaces, label)
        if label.axes & wide:
            scene.spaces.fix_all([label], f"{scene} mixes them")
            continue
        states = {space: _reduced(kind, each, int(np.prod(sizes))) for space, each in label.states.items()}
        label = dataclasses.replace(label, states=states)
        # Padding is never the largest or the smallest, but it adds nothing to a sum.
        labels.append(label.unsure() if dilated or (padded and kind == "reduce_sum") else label)
    return Value(shape, data=True, labels=tuple(labels))


def lost(scene: Scene, operands: Sequence[Value], shape: tuple[int, ...]) -> Value:
    """Any operation that is not known: all channels in it are fixed, and all parameters in it, too.

    Args:
      scene: the operation.
      operands: its operands.
      shape: the result's shape.

    Returns:
      The result.
    """
    for operand in operands:
        scene.spaces.fix_all(operand.labels, f"{scene} does something unknown with them")
        for path in operand.paths:
            if any(each.data for each in operands):
                scene.spaces.use(path, "other", None)
    if any(operand.data for operand in operands):
        return Value(shape, data=True)
    return Value(shape, sources=dict.fromkeys((path, 0) for operand in operands for path in operand.paths))


def _part(scene: Scene, value: Value, part: Value) -> Value:
    """A part of an array; a single channel alone is not followed."""
    for label, left in zip(value.labels, part.labels, strict=True):
        if label.axes != left.axes:
            scene.spaces.fix_all([label], f"{scene} takes a single one of them")
    return part


def _reduced(name: str, state: State, number: int) -> State:
    if name in ("reduce_max", "reduce_min") and not state.padded:
        return state
    if name == "reduce_sum" and not state.padded:
        return dataclasses.replace(state, sample=state.sample * number)
    return state.unsure()


def _constants(operands: Sequence[Value], shape: tuple[int, ...], axis: int) -> Value:
    """Joins arrays that do not depend on images. Whose parameters are where is lost."""
    paths = frozenset().union(*(operand.paths for operand in operands))
    constants: list[Any] = [operand.constant for operand in operands]
    if paths or any(constant is None for constant in constants):
        return Value(shape, sources=dict.fromkeys((path, 0) for path in paths))
    full = [np.broadcast_to(c, o.shape) for c, o in zip(constants, operands, strict=True)]
    return fixed_number(shape, places.compress(np.concatenate(full, axis)))


def _behind(scene: Scene, operands: Sequence[Value], there: list[Label | None], axis: int) -> Label:
    """Channels one behind another."""
    spaces = scene.spaces
    parts, states = [], {}
    shape = np.max([label.channels.shape for label in there if label is not None], axis=0)
    for operand, label in zip(operands, there, strict=True):
        target = [operand.shape[i] if i == axis else n for i, n in enumerate(shape)]
        if label is None:
            parts.append(np.full(target, ZERO if operand.is_zero else FREE))
        else:
            parts.append(np.broadcast_to(label.channels, target))
    mine = [closed(spaces, label) for label in there if label is not None]
    for space in {spaces.root(space) for label in mine for space in label.states}:
        # A tensor may stand here twice.
        each = [state_of(spaces, label, space) for label in mine]
        states[space] = merged(spaces, [state for state in each if state is not None])
    widths = {label.width for label in mine}
    joined = Label(np.concatenate(parts, axis), states, max(widths))
    if len(widths) > 1:
        spaces.fix_all([joined], f"{scene} joins heads with channels")
    return joined


def _beside(scene: Scene, operands: Sequence[Value], group: Labels) -> list[Label]:
    """The same channels at more places."""
    spaces, there = scene.spaces, [label for label in group if label is not None]
    first = there[0]
    if any(label is None and not operand.is_zero for operand, label in zip(operands, group, strict=True)):
        spaces.fix_all(there, f"{scene} puts values beside them that no layer writes alone")
    for other in there[1:]:
        meeting = pairs(spaces, first, other)
        if meeting is None or other.width != first.width:
            spaces.fix_all(there, f"{scene} combines them with channels at other places")
            return []
        for mine, yours in meeting:
            spaces.join(mine, yours)
    states = {}
    for space in {spaces.root(space) for label in there for space in label.states}:
        each = [state_of(spaces, closed(spaces, label), space) for label in there]
        state = merged(spaces, [state for state in each if state is not None])
        states[space] = state if len(there) == len(group) else state.unsure()
    return [Label(first.channels, states, first.width)]
