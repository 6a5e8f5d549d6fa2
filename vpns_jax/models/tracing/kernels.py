"""Kernels: the channels that they read and write, and convolutions."""

import numpy as np

from vpns_jax.models.tracing import places
from vpns_jax.models.tracing.scene import Scene, closed, lost, state_of, touch
from vpns_jax.models.tracing.spaces import Reading
from vpns_jax.models.tracing.values import Label, Open, State, Value

KERNEL = "kernel"


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
        return lost(scene, [data, kernel], shape)
    touch(scene, data)
    reads = [label for label in data.labels if label.axes == {feature}]
    spaces.fix_all([label for label in data.labels if label not in reads], f"{scene} reads its channels as pixels")
    padded = any(n > 0 for pads in params["padding"] for n in pads) or any(n > 1 for n in params["lhs_dilation"])
    outputs = shape[out_feature]
    if params["feature_group_count"] == 1:
        for label in reads:
            read(scene, kernel, label, np.arange(data.shape[feature]), label.channels.ravel(), padded=padded)
        return Value(shape, data=True, labels=(written(scene, kernel, shape, out_feature),))
    if params["feature_group_count"] == data.shape[feature] == outputs and len(reads) == 1:
        label = closed(spaces, reads[0])
        (space, *others) = {spaces.root(each) for each in label.states}
        if not others and np.array_equal(label.channels.ravel() - label.channels.min(), np.arange(spaces.size(space))):
            return Value(shape, data=True, labels=(_filtered(scene, kernel, label, space, shape, out_feature),))
    reason = f"{scene} has {params['feature_group_count']} groups of channels"
    spaces.fix_all(data.labels, reason)
    label = written(scene, kernel, shape, out_feature)
    spaces.fix_all([label], reason)
    return Value(shape, data=True, labels=(label,))


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
    if np.unique(pairs[0]).size < pairs.shape[1]:
        spaces.fix_all([label], f"{scene} reads several of its channels by one row of its kernel")
    pairs = pairs[:, pairs[1] >= 0]
    roots, index = spaces.locate(pairs[1])
    for space in sorted(set(roots.tolist())):
        state, mine = state_of(spaces, label, space), roots == space
        assert state is not None
        if label.width > 1 or not state.keeps_zero:
            spaces.fix(space, f"{scene} reads a function of its channels that does not keep zero")
        path, total = kernel.pure.removeprefix("params/"), _rows(kernel)
        reading = Reading(path, space, pairs[0][mine], index[mine], total, padded or state.padded, state)
        spaces.readings.append(reading)


def written(scene: Scene, kernel: Value, shape: tuple[int, ...], axis: int) -> Label:
    """Opens the new channels that a kernel writes.

    Args:
      scene: the operation.
      kernel: the kernel.
      shape: the result's shape.
      axis: the axis of the new channels.

    Returns:
      Their label.
    """
    spaces = scene.spaces
    space = spaces.open(shape[axis])
    return Label(_numbered(scene, space, shape, axis), {space: _state(scene, kernel, space, None)})


def column(kernel: Value) -> int:
    """The axis of a kernel, perhaps reshaped, along which its outputs lie.

    Args:
      kernel: the kernel.
    """
    return next(iter(places.varied(index(kernel, -1))), len(kernel.shape) - 1)


def index(kernel: Value, axis: int) -> np.ndarray:
    """The index of each element of a kernel along one of the parameter's own axes.

    Args:
      kernel: the kernel, perhaps reshaped.
      axis: the parameter's axis, counted from its end.
    """
    where = kernel.sources[kernel.pure, len(kernel.sources) + axis]
    assert where is not None
    return where


def stands(kernel: Value, axes: tuple[int, ...]) -> bool:
    """Whether a product contracts all axes of a kernel but its outputs, which are in order.

    Args:
      kernel: the kernel, perhaps reshaped.
      axes: the contracted axes.
    """
    if len(kernel.sources) < 2 or any(where is None for where in kernel.sources.values()):
        return False
    outputs, last = index(kernel, -1), column(kernel)
    inner = all(
        places.varied(where) <= set(axes)
        for (_, axis), where in kernel.sources.items()
        if where is not None and axis != len(kernel.sources) - 1
    )
    return inner and last not in axes and np.array_equal(outputs.ravel(), np.arange(kernel.shape[last]))


def _filtered(scene: Scene, kernel: Value, label: Label, space: int, shape: tuple[int, ...], axis: int) -> Label:
    """Channels after a depthwise convolution, which writes the channels that it reads."""
    before = state_of(scene.spaces, label, space)
    if before is None or not before.keeps_zero:
        scene.spaces.fix(space, f"{scene} reads a function of its channels that does not keep zero")
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
    return places.along(axis, shape) + scene.spaces.first(space)


def _rows(kernel: Value) -> int:
    """The size of the parameter's last axis but one."""
    return int(index(kernel, -2).max(initial=-1)) + 1


def _in_order(kernel: Value) -> bool:
    """Whether a kernel is as its parameter is."""
    return len(kernel.sources) == len(kernel.shape) and all(
        where is not None and np.array_equal(where, places.along(axis, kernel.shape))
        for (_, axis), where in kernel.sources.items()
    )
