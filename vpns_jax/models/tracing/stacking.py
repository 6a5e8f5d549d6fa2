"""Operations that put arrays beside each other, or something around an array."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from vpns_jax.models.tracing import places
from vpns_jax.models.tracing.scene import Labels, Scene, closed, groups, lost, merged, pairs, state_of, touch
from vpns_jax.models.tracing.values import FREE, ZERO, Label, Value, fixed_number


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
    for operand in operands:
        touch(scene, operand)
    labels: list[Label] = []
    # Labels along the axis belong together, though they are on different places of it.
    behind = [[label for label in operand.labels if axis in label.axes] for operand in operands]
    if any(behind):
        if max(len(each) for each in behind) > 1:
            scene.spaces.fix_all(
                [label for each in behind for label in each], f"{scene} has its channels along several axes"
            )
        else:
            labels.append(_behind(scene, operands, [each[0] if each else None for each in behind], axis))
    rest = [dataclasses.replace(o, labels=tuple(x for x in o.labels if axis not in x.axes)) for o in operands]
    for group in groups(rest):
        labels += _beside(scene, operands, group)
    return Value(shape, data=True, labels=tuple(labels))


def stack(scene: Scene, operands: Sequence[Value], shape: tuple[int, ...]) -> Value:
    """Describes `stack`: its operands lie beside each other along a new axis.

    Args:
      scene: the operation.
      operands: its operands.
      shape: the result's shape.

    Returns:
      The result.
    """
    axis = scene.params["axis"]
    thin = tuple(1 if i == axis else n for i, n in enumerate(shape))
    new = [each.moved(thin, lambda where: np.expand_dims(where, axis)) for each in operands]
    return concatenate(dataclasses.replace(scene, params={"dimension": axis}), new, shape)


def tile(scene: Scene, value: Value, shape: tuple[int, ...]) -> Value:
    """Describes `tile`: an array lies behind itself, along any axes.

    Args:
      scene: the operation.
      value: its operand.
      shape: the result's shape.

    Returns:
      The result.
    """
    for axis, times in enumerate(scene.params["reps"]):
        if times > 1:
            wider = tuple(shape[i] if i <= axis else n for i, n in enumerate(value.shape))
            value = concatenate(dataclasses.replace(scene, params={"dimension": axis}), [value] * times, wider)
    return value


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
        return lost(scene, [value, filler], shape)
    touch(scene, filler)
    wide = frozenset(i for i, each in enumerate(config) if max(each) > 0)
    labels = []
    for label in value.labels:
        label = closed(scene.spaces, label)
        if not filler.is_zero:
            scene.spaces.fix_all([label], f"{scene} puts numbers other than zero around its channels")
        along = wide & label.axes
        if along:
            scene.spaces.fix_all([label], f"{scene} puts zeros among its channels")
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
        spaces.fix_all(there, f"{scene} puts values beside its channels that no layer writes alone")
    channels = first.channels
    for other in there[1:]:
        meeting = pairs(spaces, first, other)
        if meeting is None or other.width != first.width:
            spaces.fix_all(there, f"{scene} combines its channels with others at other places")
            return []
        for mine, yours in meeting:
            spaces.join(mine, yours)
        channels = np.maximum(*np.broadcast_arrays(channels, other.channels))
    states = {}
    for space in {spaces.root(space) for label in there for space in label.states}:
        each = [state_of(spaces, closed(spaces, label), space) for label in there]
        state = merged(spaces, [state for state in each if state is not None])
        states[space] = state if len(there) == len(group) else state.unsure()
    return [Label(places.compress(channels), states, first.width)]
