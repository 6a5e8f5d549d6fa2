"""Elementwise operations on channels: what is added or multiplied belongs together."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vpns_jax.models.tracing import own_parameters, places, pointwise
from vpns_jax.models.tracing.scene import Labels, Scene, closed, groups, pairs, roots, state_of
from vpns_jax.models.tracing.spaces import Companion, Spaces
from vpns_jax.models.tracing.values import KEEPS_ZERO, UNKNOWN, Label, State, Value


def pointwise_value(scene: Scene, operands: Sequence[Value], shape: tuple[int, ...]) -> Value:
    """Describes the result of an elementwise operation.

    Args:
      scene: the operation.
      operands: its operands.
      shape: the result's shape.

    Returns:
      The result.
    """
    sample = pointwise.evaluate(scene.name, scene.params, [operand.sample for operand in operands])
    if any(operand.data for operand in operands):
        labels = [label for group in groups(operands) for label in _join(scene, operands, group)]
        _note(scene, operands)
        return Value(
            shape, data=True, labels=tuple(labels), weights=_shares(scene, operands), equal=_equal_axes(operands)
        )
    if pointwise.copies(scene.name, scene.params):
        return operands[0]
    if sources := _sources(operands, shape):
        return Value(shape, sources=sources, sample=sample)
    constants = [operand.constant for operand in operands]
    if any(constant is None for constant in constants):
        return Value(shape)
    constant = pointwise.evaluate(scene.name, scene.params, [_filled(c, shape) for c in constants if c is not None])
    return Value(shape, sample=sample, constant=places.compress(np.asarray(constant)))


def multiply(scene: Scene, first: Label, second: Label, *, sure: bool = False) -> list[Label]:
    """Describes a product of two arrays of channels, or a quotient.

    A product is zero where one factor is. If the other one serves nothing else, its layers are companions.

    Args:
      scene: the operation.
      first: the label of the factor that is kept, if possible.
      second: that of the other one.
      sure: whether constants of the kept factor stay what they are, as in a weighted mean.

    Returns:
      The product's label, if it has one.
    """
    spaces = scene.spaces
    owner, other = first, second
    if not _keeps_zero(owner) and scene.name != "div":
        owner, other = second, first
    meeting = pairs(spaces, owner, other)
    # A quotient of zeros is no number.
    divided = scene.name == "div" and not all(np.abs(state.sample[0]) > 0 for state in other.states.values())
    if meeting is None or not _keeps_zero(owner) or divided:
        spaces.fix_all([first, second], f"{scene} combines its channels with others at other places")
        return []
    for mine, yours in meeting:
        spaces.companions.append(Companion(yours, mine, other.width))
    kept, _ = closed(spaces, owner), closed(spaces, other)
    return [kept if sure else kept.unsure()]


def _join(scene: Scene, operands: Sequence[Value], group: Labels) -> list[Label]:
    """The result's label on some axes."""
    spaces, there = scene.spaces, [label for label in group if label is not None]
    first = there[0]
    product = scene.name in ("mul", "div") and len(there) == 2
    if product and roots(spaces, there[:1]) != roots(spaces, there[1:]):
        return multiply(scene, *there)
    channels = first.channels
    for other in there[1:]:
        meeting = pairs(spaces, first, other)
        if meeting is None or first.width != other.width:
            spaces.fix_all(there, f"{scene} combines its channels with others at other places")
            return []
        for mine, yours in meeting:
            spaces.join(mine, yours)
        channels = np.maximum(*np.broadcast_arrays(channels, other.channels))
    if len(there) == 1 and len(operands) == 2:
        at = 0 if group[0] is not None else 1
        if operands[1 - at].paths and not operands[1 - at].data:
            return _parameter(scene, first, operands[1 - at], first=at == 0)
    if not pointwise.copies(scene.name, scene.params):
        group = [None if label is None else closed(spaces, label) for label in group]
    states = {space: _state(scene, space, operands, group) for space in roots(spaces, there)}
    return [Label(places.compress(channels), states, first.width)]


def _state(scene: Scene, space: int, operands: Sequence[Value], group: Labels) -> State:
    """What the channels of one tensor become."""
    spaces = scene.spaces
    mine = [None if label is None else state_of(spaces, label, space) for label in group]
    samples = [
        _other(scene, operand, group, space) if state is None else state.sample
        for operand, state in zip(operands, mine, strict=True)
    ]
    there = [state for state in mine if state is not None]
    if pointwise.copies(scene.name, scene.params):
        return there[0]
    sample = pointwise.evaluate(scene.name, scene.params, samples)
    if np.isnan(sample[0]) and not np.isnan(there[0].sample[0]):
        spaces.fix(space, f"{scene} combines its channels with what is no channel of a single layer")
    padded = any(state.padded for state in there)
    state = State(sample, frozenset().union(*(state.seen for state in there)), padded)
    # Zeros may lie at different places.
    return state.unsure() if padded and len(there) > 1 else state


def _other(scene: Scene, operand: Value, group: Labels, space: int) -> np.ndarray:
    """The sample of an operand without channels of a tensor. It must not have a number for each channel."""
    axes = frozenset().union(*(label.axes for label in group if label is not None))
    if operand.data:
        if not axes <= operand.equal and operand.shape:
            scene.spaces.fix(space, f"{scene} combines its channels with numbers that no layer writes alone")
        return operand.sample
    if operand.paths:
        mixed = [path for (path, _), where in operand.sources.items() if where is None or places.varied(where) & axes]
        for path in mixed:
            scene.spaces.use(path, "other", None)
            scene.spaces.fix(space, f"{path} has numbers for its channels that cannot be cut out ({scene})")
        # The first entry stands for a real zero, where the sign that the parameter really has decides: unknown.
        return UNKNOWN if mixed else np.where(np.isnan(KEEPS_ZERO), operand.sample, np.nan)
    if operand.constant is not None and operand.constant.size == 1:
        return operand.sample
    if operand.constant is None or places.varied(operand.constant) & axes:
        scene.spaces.fix(space, f"{scene} uses constants of the code, one for each of its channels")
    return UNKNOWN


def _note(scene: Scene, operands: Sequence[Value]) -> None:
    """Notes the use of parameters that have no number for each channel."""
    axes = frozenset[int]().union(*(label.axes for operand in operands for label in operand.labels))
    for operand in operands:
        for (path, _), where in () if operand.data else operand.sources.items():
            if where is None or not places.varied(where) & axes:
                scene.spaces.use(path, object(), None)


def _parameter(scene: Scene, label: Label, value: Value, *, first: bool) -> list[Label]:
    """The result of an operation with parameters: a layer's own ones, or factors."""
    spaces, named = scene.spaces, ", ".join(sorted(value.paths))
    vectors = _vectors(scene, label, value)
    states = {}
    for space in roots(spaces, [label]):
        state, after = _state_of(spaces, label, space), None
        if vectors == value.paths:
            after = own_parameters.apply(spaces, scene.name, state, value, first=first, samples=scene.samples)
        if after is None:
            after = own_parameters.close(spaces, state).unsure()
            for path in value.paths if vectors is None else vectors:
                spaces.use(path, ("factor", space), space)
            if scene.name != "mul" and not (scene.name == "div" and first):
                spaces.fix(space, f"{named} is added to its channels ({scene})")
            elif vectors is None or not all(path.startswith("params/") for path in vectors):
                spaces.fix(space, f"{named} has numbers for its channels that cannot be cut out ({scene})")
            else:
                spaces.vectors.extend((path.removeprefix("params/"), space) for path in vectors)
        states[space] = after
    return [dataclasses.replace(label, states=states)]


def _vectors(scene: Scene, label: Label, value: Value) -> frozenset[str] | None:
    """The parameters `[c]` with one number for each channel; None if any have numbers for them in another order."""
    spaces, paths, several = scene.spaces, set(), len(roots(scene.spaces, [label])) > 1
    for (path, _), where in value.sources.items():
        if where is not None and not places.varied(where) & label.axes:
            continue
        if where is None or label.width > 1 or several or scene.dims[path] != 1 or (label.channels < 0).any():
            return None
        _, index = spaces.locate(label.channels)
        if not _equal(*np.broadcast_arrays(index, where)):
            return None
        paths.add(path)
    return frozenset(paths)


def _keeps_zero(label: Label) -> bool:
    return all(state.keeps_zero for state in label.states.values())


def _state_of(spaces: Spaces, label: Label, space: int) -> State:
    state = state_of(spaces, label, space)
    assert state is not None
    return state


def _shares(scene: Scene, operands: Sequence[Value]) -> frozenset[int]:
    """The axes along which a quotient's elements are shares: what was summed over to get its divisor."""
    if pointwise.copies(scene.name, scene.params):
        return operands[0].weights
    total = operands[1].total if scene.name == "div" else None
    return total.weights(operands[0]) if total else frozenset()


def _equal_axes(operands: Sequence[Value]) -> frozenset[int]:
    """The axes along which all operands have equal elements."""
    equal = frozenset(range(max(len(operand.shape) for operand in operands)))
    for operand in operands:
        if operand.data:
            equal &= operand.equal
        else:
            places_of = [operand.constant] if not operand.paths else list(operand.sources.values())
            for where in places_of:
                equal = equal - places.varied(where) if where is not None else frozenset()
    return equal


def _sources(operands: Sequence[Value], shape: tuple[int, ...]) -> dict[tuple[str, int], np.ndarray | None]:
    """The parameters of a result without data, and where they are in it."""
    sources: dict[tuple[str, int], np.ndarray | None] = {}
    # Cut out with a parameter, the code's own numbers would be others.
    alone = not any(_differs(operand) for operand in operands if not operand.paths)
    for operand in operands:
        for source, where in operand.sources.items():
            same = source not in sources or _equal(sources[source], where)
            sources[source] = where if same and alone and operand.shape == shape else None
    return sources


def _differs(value: Value) -> bool:
    """Whether the numbers of an array of constants are not known to be equal."""
    if value.constant is None:
        return math.prod(value.shape) > 1
    return bool(places.varied(value.constant))


def _filled(constant: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Gives a scalar as many axes as the other operands have."""
    return constant.reshape([1] * len(shape)) if constant.size == 1 else constant


def _equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is not None and other is not None and np.array_equal(one, other)
