"""Products of arrays: with kernels, with constants, and of activations, such as attention's."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vpns_jax.models.tracing import places
from vpns_jax.models.tracing.joining import multiply
from vpns_jax.models.tracing.kernels import column, index, is_kernel, read, stands, written
from vpns_jax.models.tracing.scene import Scene, closed, groups, state_of, touch
from vpns_jax.models.tracing.spaces import Spaces
from vpns_jax.models.tracing.values import SMALL, Label, Value, fixed_number


def dot(scene: Scene, left: Value, right: Value, shape: tuple[int, ...]) -> Value:
    """Describes the result of `lax.dot_general`.

    Args:
      scene: the operation.
      left: its first operand.
      right: its second operand.
      shape: the result's shape.

    Returns:
      The result.
    """
    if not left.data and not right.data:
        return _constant(scene, left, right, shape)
    if left.data and right.data:
        return _product(scene, left, right, shape)
    contracted, batch = (tuple(tuple(map(int, side)) for side in each) for each in scene.params["dimension_numbers"])
    at = 0 if left.data else 1
    data, matrix = (left, right) if left.data else (right, left)
    axes, others = contracted[at], contracted[1 - at]
    free = [i for i in range(len(matrix.shape)) if i not in others and i not in batch[1 - at]]
    # The axes of the first operand that are not contracted come before those of the second one.
    layout = _layout(data, axes, batch[at], len(free) if at == 1 else 0)
    if is_kernel(matrix.pure) and not batch[0] and stands(matrix, others):
        start = len(layout) if at == 0 else 0
        return _dense(scene, data, matrix, axes, others, layout, start + free.index(column(matrix)), shape)
    alike = [label for label in data.labels if label.axes & set(batch[at])]
    scene.spaces.fix_all(alike, f"{scene} multiplies each of its channels by something else")
    return _mixed(scene, data, matrix, axes, others, layout, shape)


def _dense(
    scene: Scene,
    data: Value,
    kernel: Value,
    axes: tuple[int, ...],
    others: tuple[int, ...],
    layout: dict[int, int],
    outputs: int,
    shape: tuple[int, ...],
) -> Value:
    """A matrix product with a kernel: channels along the contracted axes are read, all others stay."""
    labels = []
    for label in data.labels:
        if not label.axes & set(axes):
            labels.append(_laid(closed(scene.spaces, label).unsure(), layout, shape))
        elif not label.axes <= set(axes):
            scene.spaces.fix_all([label], f"{scene} reads its channels along several axes")
        else:
            rows = _flat(index(kernel, -2), kernel.shape, others)
            read(scene, kernel, label, rows, _flat(label.channels, data.shape, axes), padded=False)
    return Value(shape, data=True, labels=(*labels, written(scene, kernel, shape, outputs)))


def _mixed(
    scene: Scene,
    data: Value,
    matrix: Value,
    axes: tuple[int, ...],
    others: tuple[int, ...],
    layout: dict[int, int],
    shape: tuple[int, ...],
) -> Value:
    """A product with a constant matrix, such as that of a pooling, or with parameters that are no kernel."""
    scale = None
    if matrix.constant is not None and math.prod(matrix.shape) <= SMALL:
        sums = np.broadcast_to(matrix.constant, matrix.shape).sum(axis=others)
        scale = float(sums.flat[0]) if sums.size and np.allclose(sums, sums.flat[0], rtol=1e-6) else None
    labels = []
    for label in data.labels:
        label = closed(scene.spaces, label)
        if label.axes & set(axes):
            named = ", ".join(sorted(matrix.paths)) or "a constant"
            scene.spaces.fix_all([label], f"{scene} mixes its channels by {named}, which is no kernel of a layer")
        else:
            labels.append(_laid(_scaled(label, scale), layout, shape))
    touch(scene, matrix)
    return Value(shape, data=True, labels=tuple(labels))


def _constant(scene: Scene, left: Value, right: Value, shape: tuple[int, ...]) -> Value:
    """A product of arrays that do not depend on the images."""
    paths = left.paths | right.paths
    if (
        paths
        or left.constant is None
        or right.constant is None
        or math.prod(left.shape) * math.prod(right.shape) > SMALL
    ):
        return Value(shape, sources=dict.fromkeys((path, 0) for path in paths))
    (left_axes, right_axes), (left_batch, right_batch) = scene.params["dimension_numbers"]
    names = [list(range(len(left.shape))), list(range(len(left.shape), len(left.shape) + len(right.shape)))]
    for mine, yours in zip((*left_axes, *left_batch), (*right_axes, *right_batch), strict=True):
        names[1][yours] = names[0][mine]
    free = [names[0][i] for i in _layout(left, left_axes, left_batch)]
    free += [names[1][i] for i in _layout(right, right_axes, right_batch) if i not in right_batch]
    full = [np.broadcast_to(left.constant, left.shape), np.broadcast_to(right.constant, right.shape)]
    return fixed_number(shape, places.compress(np.einsum(full[0], names[0], full[1], names[1], free)))


def _product(scene: Scene, left: Value, right: Value, shape: tuple[int, ...]) -> Value:
    """A product of activations. Channels that are contracted with channels depend on these, head by head."""
    (left_axes, right_axes), (left_batch, right_batch) = (
        tuple(tuple(int(i) for i in side) for side in each) for each in scene.params["dimension_numbers"]
    )
    behind = len(left.shape) - len(left_axes) - len(left_batch)
    layouts = [_layout(left, left_axes, left_batch), _layout(right, right_axes, right_batch, behind)]
    survivors: list[list[Label]] = [[], []]
    inner: list[list[Label]] = [[], []]
    sides = ((left, left_axes, right, right_axes), (right, right_axes, left, left_axes))
    for at, (value, axes, other, other_axes) in enumerate(sides):
        for label in value.labels:
            label = closed(scene.spaces, label)
            if label.axes & set(axes):
                inner[at].append(label)
            else:
                # Weighted means keep constants.
                means = bool(axes) and set(other_axes) == other.weights
                survivors[at].append(_laid(_scaled(label, 1.0 if means else None), layouts[at], shape))
    heads = []
    if len(inner[0]) == len(inner[1]) == 1:
        first, second = inner[0][0], inner[1][0]
        grouped = _grouped(scene, left, right, first, second)
        heads += [_laid(grouped, layouts[0], shape)] if grouped else []
    else:
        scene.spaces.fix_all([*inner[0], *inner[1]], f"{scene} adds up its channels")
    labels = heads
    for pair in groups([Value(shape, labels=tuple(side)) for side in survivors]):
        there = [label for label in pair if label is not None]
        if len(there) == 1 and there[0].axes & set(range(len(left_batch))):
            scene.spaces.fix_all(there, f"{scene} multiplies each of its channels by something else")
        labels += there if len(there) == 1 else multiply(scene, *there, sure=True)
    return Value(shape, data=True, labels=tuple(labels))


def _grouped(scene: Scene, left: Value, right: Value, first: Label, second: Label) -> Label | None:
    """Channels that are contracted with each other, such as those of queries and keys, in groups, such as heads."""
    spaces = scene.spaces
    (left_axes, right_axes), (left_batch, right_batch) = scene.params["dimension_numbers"]
    flat = []
    for value, label, axes, batch in ((left, first, left_axes, left_batch), (right, second, right_axes, right_batch)):
        free = label.axes - set(axes) - set(batch)
        full = places.spread(label.channels, value.shape, frozenset({*axes, *batch}))
        order = [*batch, *axes, *(i for i in range(len(value.shape)) if i not in (*batch, *axes))]
        size = math.prod(value.shape[i] for i in batch)
        flat.append(None if free else full.transpose(order).reshape(size, -1))
    roots = [spaces.root(space) for label in (first, second) for space in label.states]
    width = math.prod(left.shape[i] for i in left_axes)
    if len(roots) == 2 and _same_heads(spaces, roots, flat, width):
        spaces.join(*roots)
        channels = first.channels
        for axis in left_axes:
            channels = np.take(channels, [0], axis=int(axis))
        joined = spaces.root(roots[0])
        state = state_of(spaces, first, joined)
        assert state is not None
        return Label(channels, {joined: state.unsure()}, width)
    spaces.fix_all([first, second], f"{scene} adds up its channels")
    return None


def _same_heads(spaces: Spaces, roots: list[int], flat: list[np.ndarray | None], width: int) -> bool:
    """Whether two arrays of channels `[heads, width]` are two tensors whose heads are in order."""
    first, second = flat
    if first is None or second is None or min(first.min(), second.min()) < 0 or width < 2:
        return False
    size = spaces.size(roots[0])
    (_, heads), (_, others) = spaces.locate(first), spaces.locate(second)
    starts = heads[:, :1]
    ordered = (heads == starts + np.arange(width)).all() and (starts % width == 0).all()
    return bool(ordered and np.array_equal(heads, others) and size == spaces.size(roots[1]) and size % width == 0
                and size > width)  # fmt: skip


def _layout(value: Value, axes: Sequence[int], batch: Sequence[int], behind: int = 0) -> dict[int, int]:
    """Where the axes of an operand that are not contracted lie in the result, behind some of the other operand."""
    free = [i for i in range(len(value.shape)) if i not in axes and i not in batch]
    return {old: new for new, old in enumerate(batch)} | {old: len(batch) + behind + j for j, old in enumerate(free)}


def _laid(label: Label, layout: dict[int, int], shape: tuple[int, ...]) -> Label:
    """Moves a label's axes to where they lie in the result; all others must have size 1."""
    target = [1] * len(shape)
    order = sorted(layout, key=lambda axis: layout[axis])
    for axis in order:
        target[layout[axis]] = label.channels.shape[axis]
    rest = [i for i in range(label.channels.ndim) if i not in layout]
    return dataclasses.replace(label, channels=label.channels.transpose([*order, *rest]).reshape(target))


def _scaled(label: Label, scale: float | None) -> Label:
    """The label after weighted sums of elements, whose weights add up to a number; None if that varies."""
    if scale is None or any(state.padded for state in label.states.values()):
        return label.unsure()
    states = {s: dataclasses.replace(each, sample=each.sample * scale) for s, each in label.states.items()}
    return dataclasses.replace(label, states=states)


def _flat(where: np.ndarray, shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    """The numbers along some axes, in their order."""
    rest = tuple(i for i in range(len(shape)) if i not in axes)
    return places.spread(where, shape, frozenset(axes)).transpose([*axes, *rest]).reshape(-1)
