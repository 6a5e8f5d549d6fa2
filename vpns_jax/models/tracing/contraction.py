"""Kernels that read and write channels, and products of activations, such as attention's."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vpns_jax.models.tracing import places
from vpns_jax.models.tracing.joining import Scene, closed, groups, multiply, state_of
from vpns_jax.models.tracing.spaces import Reading, Spaces
from vpns_jax.models.tracing.values import SMALL, Label, Open, State, Value, fixed_number

KERNEL = "kernel"


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
    contracted, batch = scene.params["dimension_numbers"]
    for data, kernel, at in ((left, right, 0), (right, left, 1)):
        axes = [tuple(int(i) for i in each[at]) for each in (contracted, batch)]
        others = [tuple(int(i) for i in each[1 - at]) for each in (contracted, batch)]
        if data.data and not kernel.data:
            layout = _layout(data, axes[0], axes[1])
            if is_kernel(kernel.pure) and not axes[1] and _stands(kernel, others[0]):
                column = _column(kernel)
                width = len(data.shape) - len(axes[0])
                place = [i for i in range(len(kernel.shape)) if i not in others[0]].index(column)
                # The kernel's own axes come behind the other operand's, or before them.
                start = width if at == 0 else 0
                layout = {i: j + (0 if at == 0 else len(shape) - width) for i, j in layout.items()}
                return _dense(scene, data, kernel, axes[0], others[0], layout, start + place, shape)
            behind = 0 if at == 0 else len(kernel.shape) - len(others[0]) - len(others[1])
            layout = {i: j + (behind if i not in axes[1] else 0) for i, j in layout.items()}
            return _mixed(scene, data, kernel, axes[0], others[0], layout, shape)
    if not left.data:
        return _constant(scene, left, right, shape)
    return _product(scene, left, right, shape)


def convolution(scene: Scene, data: Value, kernel: Value, shape: tuple[int, ...]) -> Value:
    """Describes the result of `lax.conv_general_dilated`.

    Args:
      scene: the operation.
      data: its images.
      kernel: its kernel.
      shape: the result's shape.

    Returns:
      The result.
    """
    spaces, params = scene.spaces, scene.params
    feature, (out, into), out_feature = (
        spec[1] if i != 1 else spec[:2] for i, spec in enumerate(params["dimension_numbers"])
    )
    depth = len(kernel.shape)
    stands = is_kernel(kernel.pure) and not kernel.data and (out, into) == (depth - 1, depth - 2)
    if not stands or not _in_order(kernel) or params["batch_group_count"] != 1:
        spaces.fix_all(data.labels, f"{scene} has no plain kernel [h, w, in, out]")
        return _lost(scene, [data, kernel], shape)
    reads = [label for label in data.labels if label.axes == {feature}]
    spaces.fix_all([label for label in data.labels if label not in reads], f"{scene} reads them as pixels")
    padded = any(n > 0 for pads in params["padding"] for n in pads) or any(n > 1 for n in params["lhs_dilation"])
    outputs = shape[out_feature]
    if params["feature_group_count"] == 1:
        for label in reads:
            read(scene, kernel, label, np.arange(data.shape[feature]), label.channels.ravel(), padded=padded)
        return Value(shape, data=True, labels=(_written(scene, kernel, shape, out_feature),))
    if params["feature_group_count"] == data.shape[feature] == outputs and len(reads) == 1:
        label = closed(spaces, reads[0])
        (space, *others) = {spaces.root(each) for each in label.states}
        if not others and np.array_equal(label.channels.ravel() - label.channels.min(), np.arange(spaces.size(space))):
            return Value(shape, data=True, labels=(_filtered(scene, kernel, label, space, shape, out_feature),))
    reason = f"{scene} has {params['feature_group_count']} groups of channels"
    spaces.fix_all(data.labels, reason)
    written = _written(scene, kernel, shape, out_feature)
    spaces.fix_all([written], reason)
    return Value(shape, data=True, labels=(written,))


def is_kernel(path: str) -> bool:
    """Whether a parameter is a kernel, which masks can be on.

    Args:
      path: its path in the variables.
    """
    return path.startswith("params/") and path.rsplit("/", 1)[-1] == KERNEL


def read(scene: Scene, kernel: Value, label: Label, rows: np.ndarray, channels: np.ndarray, *, padded: bool) -> None:
    """Notes that a kernel reads channels.

    Args:
      scene: the operation.
      kernel: the kernel.
      label: that of what it reads.
      rows: indices along the kernel's last axis but one.
      channels: the number of the channel that each of these rows reads.
      padded: whether the operation puts zeros around.
    """
    spaces, label = scene.spaces, closed(scene.spaces, label)
    pairs = np.unique(np.stack([rows, channels]), axis=1)
    pairs = pairs[:, pairs[1] >= 0]
    roots, index = spaces.locate(pairs[1])
    for space in sorted(set(roots.tolist())):
        state, mine = state_of(spaces, label, space), roots == space
        assert state is not None
        if label.width > 1 or not state.keeps_zero:
            spaces.fix(space, f"{scene} reads a function of them that is not zero where they are")
        path, total = kernel.pure.removeprefix("params/"), _rows(kernel)
        reading = Reading(path, space, pairs[0][mine], index[mine], total, padded or state.padded, state)
        spaces.readings.append(reading)


def _dense(
    scene: Scene,
    data: Value,
    kernel: Value,
    axes: tuple[int, ...],
    others: tuple[int, ...],
    layout: dict[int, int],
    column: int,
    shape: tuple[int, ...],
) -> Value:
    """A matrix product with a kernel: channels along the contracted axes are read, all others stay."""
    labels = []
    for label in data.labels:
        if not label.axes & set(axes):
            labels.append(_laid(closed(scene.spaces, label).unsure(), layout, shape))
        elif not label.axes <= set(axes):
            scene.spaces.fix_all([label], f"{scene} reads them along several axes")
        else:
            rows = _flat(_source(kernel, -2), kernel.shape, others)
            read(scene, kernel, label, rows, _flat(label.channels, data.shape, axes), padded=False)
    return Value(shape, data=True, labels=(*labels, _written(scene, kernel, shape, column)))


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
            scene.spaces.fix_all([label], f"{scene} mixes them by {named}, which is no kernel of a layer")
        else:
            labels.append(_laid(_scaled(label, scale), layout, shape))
    _touch(scene, matrix)
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
    layouts = [_layout(left, left_axes, left_batch), _layout(right, right_axes, right_batch)]
    behind = len(left.shape) - len(left_axes) - len(left_batch)
    layouts[1] = {i: j + (behind if i not in right_batch else 0) for i, j in layouts[1].items()}
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
        scene.spaces.fix_all([*inner[0], *inner[1]], f"{scene} adds them up")
    labels = heads
    for pair in groups([Value(shape, labels=tuple(side)) for side in survivors]):
        there = [label for label in pair if label is not None]
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
        state = state_of(spaces, first, roots[0])
        assert state is not None
        return Label(channels, {spaces.root(roots[0]): state.unsure()}, width)
    spaces.fix_all([first, second], f"{scene} adds them up")
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


def _written(scene: Scene, kernel: Value, shape: tuple[int, ...], axis: int) -> Label:
    """The new channels that a kernel writes."""
    spaces = scene.spaces
    space = spaces.open(shape[axis])
    return Label(_numbered(scene, space, shape, axis), {space: _state(scene, kernel, space, None)})


def _filtered(scene: Scene, kernel: Value, label: Label, space: int, shape: tuple[int, ...], axis: int) -> Label:
    """Channels after a depthwise convolution, which writes the channels that it reads."""
    before = state_of(scene.spaces, label, space)
    if before is None or not before.keeps_zero:
        scene.spaces.fix(space, f"{scene} reads a function of them that is not zero where they are")
    return Label(label.channels.reshape([shape[axis] if i == axis else 1 for i in range(len(shape))]),
                 {space: _state(scene, kernel, space, before)})  # fmt: skip


def _state(scene: Scene, kernel: Value, space: int, before: State | None) -> State:
    """The state of channels that were written just now."""
    spaces = scene.spaces
    writer = spaces.write(space, kernel.pure.removeprefix("params/"))
    spaces.use(kernel.pure, ("writer", writer), space)
    sample = spaces.writers[writer].sample if before is None else before.unsure().sample
    seen = frozenset({writer}) | (before.seen if before else frozenset())
    return State(sample, seen, open=Open(writer, np.ones_like(sample), np.zeros_like(sample)))


def _numbered(scene: Scene, space: int, shape: tuple[int, ...], axis: int) -> np.ndarray:
    return places.along(axis, shape) + scene.spaces.numbers(space).min(initial=2**62)


def _layout(value: Value, axes: Sequence[int], batch: Sequence[int]) -> dict[int, int]:
    """Where the axes of an operand that are not contracted lie in the result, if it is the first operand."""
    free = [i for i in range(len(value.shape)) if i not in axes and i not in batch]
    return {old: new for new, old in enumerate([*batch, *free])}


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


def _source(kernel: Value, axis: int) -> np.ndarray:
    """The index of each element of a kernel along one of the parameter's own axes."""
    where = kernel.sources[kernel.pure, len(kernel.sources) + axis]
    assert where is not None
    return where


def _rows(kernel: Value) -> int:
    """The size of the parameter's last axis but one."""
    return int(_source(kernel, -2).max(initial=-1)) + 1


def _column(kernel: Value) -> int:
    """The axis of a kernel's view along which its outputs lie."""
    return next(iter(places.varied(_source(kernel, -1))), len(kernel.shape) - 1)


def _stands(kernel: Value, axes: tuple[int, ...]) -> bool:
    """Whether a product contracts all axes of a kernel but its outputs, which are in order."""
    if len(kernel.sources) < 2 or any(where is None for where in kernel.sources.values()):
        return False
    column = _column(kernel)
    outputs = _source(kernel, -1)
    inner = all(
        places.varied(where) <= set(axes)
        for (_, axis), where in kernel.sources.items()
        if where is not None and axis != len(kernel.sources) - 1
    )
    return inner and column not in axes and np.array_equal(outputs.ravel(), np.arange(kernel.shape[column]))


def _in_order(kernel: Value) -> bool:
    """Whether a kernel is as its parameter is."""
    return len(kernel.sources) == len(kernel.shape) and all(
        where is not None and np.array_equal(where, places.along(axis, kernel.shape))
        for (_, axis), where in kernel.sources.items()
    )


def _touch(scene: Scene, value: Value) -> None:
    """Notes a use of kernels that is none of a layer's."""
    for path in value.paths:
        scene.spaces.use(path, "other", None)


def _lost(scene: Scene, operands: Sequence[Value], shape: tuple[int, ...]) -> Value:
    for operand in operands:
        _touch(scene, operand)
    return Value(shape, data=True)
