"""Sums, means and maxima over axes or windows."""

import dataclasses

import numpy as np

from vpns_jax.models.tracing import places
from vpns_jax.models.tracing.scene import Scene, closed, lost
from vpns_jax.models.tracing.values import Label, State, Total, Value, fixed_number


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
            scene.spaces.fix_all([label], f"{scene} mixes its channels")
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
    if not value.data:
        return lost(scene, [value], shape)
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
            scene.spaces.fix_all([label], f"{scene} mixes its channels")
            continue
        states = {space: _reduced(kind, each, int(np.prod(sizes))) for space, each in label.states.items()}
        label = dataclasses.replace(label, states=states)
        # Padding is never the largest or the smallest, but it adds nothing to a sum.
        labels.append(label.unsure() if dilated or (padded and kind == "reduce_sum") else label)
    return Value(shape, data=True, labels=tuple(labels))


def _reduced(name: str, state: State, number: int) -> State:
    if name in ("reduce_max", "reduce_min") and not state.padded:
        return state
    if name == "reduce_sum" and not state.padded:
        return dataclasses.replace(state, sample=state.sample * number)
    return state.unsure()
