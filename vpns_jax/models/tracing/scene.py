"""An operation on channels, and questions about the channels that meet in it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vpns_jax.models.tracing import own_parameters
from vpns_jax.models.tracing.spaces import Spaces
from vpns_jax.models.tracing.values import KEEPS_ZERO, UNKNOWN, ZERO, Label, State, Value

# The operands' labels; None where an operand has none.
Labels = list[Label | None]


@dataclasses.dataclass(frozen=True)
class Scene:
    """Where an operation happens.

    Attributes:
      spaces: all tensors of channels.
      samples: those of all parameters.
      dims: the parameters' numbers of axes.
      name: the primitive.
      params: its parameters.
      layer: the layer that it belongs to, for reasons.
    """

    spaces: Spaces
    samples: Mapping[str, np.ndarray]
    dims: Mapping[str, int]
    name: str
    params: dict[str, Any]
    layer: str

    def __str__(self) -> str:
        return f"{self.name} in {self.layer}" if self.layer else self.name


def groups(operands: Sequence[Value]) -> list[Labels]:
    """Collects the operands' labels that lie on the same axes.

    Args:
      operands: arrays of one shape, or scalars.

    Returns:
      The labels of each group, one for each operand.
    """
    collected: list[Labels] = []
    for i, operand in enumerate(operands):
        for label in operand.labels:
            for group in collected:
                if group[i] is None and any(other is not None and other.axes & label.axes for other in group):
                    group[i] = label
                    break
            else:
                collected.append([label if j == i else None for j in range(len(operands))])
    return collected


def pairs(spaces: Spaces, one: Label, other: Label) -> set[tuple[int, int]] | None:
    """Finds the tensors whose channels meet in two arrays.

    Args:
      spaces: all tensors of channels.
      one: an array's label.
      other: the label of another array of its shape; its groups may be wider.

    Returns:
      The tensors; None if anywhere channels of different places meet, or a channel and what is not zero.
    """
    if one.width not in (1, other.width):
        return None
    first, second = (each.ravel() for each in np.broadcast_arrays(one.channels, other.channels))
    # Where one array has no channel, it must be zero.
    if ((first >= 0) & (second < 0) & (second != ZERO)).any() or ((second >= 0) & (first < 0) & (first != ZERO)).any():
        return None
    both = (first >= 0) & (second >= 0)
    (mine, here), (yours, there) = spaces.locate(first[both]), spaces.locate(second[both])
    if one.width < other.width:
        here = here // other.width * other.width
    meeting = set(zip(mine.tolist(), yours.tolist(), strict=True))
    same = (here == there).all() and all(spaces.size(x) == spaces.size(y) for x, y in meeting)
    return meeting if same else None


def roots(spaces: Spaces, labels: Sequence[Label]) -> list[int]:
    """Lists the tensors whose channels some labels name.

    Args:
      spaces: all tensors of channels.
      labels: the labels.
    """
    return sorted({spaces.root(space) for label in labels for space in label.states})


def closed(spaces: Spaces, label: Label) -> Label:
    """Ends the lists of layers' own parameters; see `own_parameters.close`.

    Args:
      spaces: all tensors of channels.
      label: an array's label.

    Returns:
      The label, with no state open.
    """
    return dataclasses.replace(
        label, states={space: own_parameters.close(spaces, each) for space, each in label.states.items()}
    )


def state_of(spaces: Spaces, label: Label, space: int) -> State | None:
    """What the channels of a tensor have become in an array.

    Args:
      spaces: all tensors of channels.
      label: the array's label.
      space: the tensor.

    Returns:
      The state; None if the array has no channel of the tensor.
    """
    states = [state for each, state in label.states.items() if spaces.root(each) == space]
    return merged(spaces, states) if states else None


def merged(spaces: Spaces, states: Sequence[State]) -> State:
    """What is known of channels that are in one of several states.

    Args:
      spaces: all tensors of channels.
      states: the states, at least one.

    Returns:
      The state.
    """
    if len(states) == 1:
        return states[0]
    states = [own_parameters.close(spaces, state) for state in states]
    first, seen = states[0], frozenset[int]().union(*(state.seen for state in states))
    equal = all(
        np.array_equal(state.sample, first.sample, equal_nan=True) and state.padded == first.padded for state in states
    )
    zero = all(state.keeps_zero for state in states)
    sample = first.sample if equal else KEEPS_ZERO if zero else UNKNOWN
    return State(sample, seen, any(state.padded for state in states))


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
        scene.spaces.fix_all(operand.labels, f"{scene} does something unknown with its channels")
        for path in operand.paths:
            if any(each.data for each in operands):
                scene.spaces.use(path, "other", None)
    if any(operand.data for operand in operands):
        return Value(shape, data=True)
    return Value(shape, sources=dict.fromkeys((path, 0) for operand in operands for path in operand.paths))


def touch(scene: Scene, value: Value) -> None:
    """Notes a use of parameters that is none of a layer's.

    Args:
      scene: the operation.
      value: what is made of them.
    """
    for path in value.paths:
        scene.spaces.use(path, "other", None)
