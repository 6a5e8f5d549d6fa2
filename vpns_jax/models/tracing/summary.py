"""From what the tracer collected to `Channels`."""

import math
from collections.abc import Sequence

import numpy as np

from vpns_jax.models.norm import EPSILON
from vpns_jax.models.tracing.spaces import Draft, Reading, Spaces
from vpns_jax.models.wiring import (
    Activation,
    Channels,
    Reader,
    Writer,
    gelu,
    identity,
    keeps_zero,
    relu,
    relu6,
    silu,
    tanh_gelu,
)

ACTIVATIONS: tuple[Activation, ...] = (identity, relu, gelu, tanh_gelu, silu, relu6)


def summarize(spaces: Spaces) -> tuple[Channels, ...]:
    """Describes all tensors of channels.

    Args:
      spaces: what the tracer collected, settled.

    Returns:
      The channels, in the order of their first layers. Companions are listed with what they multiply.
    """
    writers: dict[int, list[int]] = {}
    readings: dict[int, list[Reading]] = {}
    for number, draft in enumerate(spaces.writers):
        writers.setdefault(spaces.root(draft.space), []).append(number)
    for reading in spaces.readings:
        readings.setdefault(spaces.root(reading.space), []).append(reading)
    for root, there in readings.items():
        if not spaces.reason(root) and any(_places(spaces, reading) is None for reading in there):
            reading = next(reading for reading in there if _places(spaces, reading) is None)
            spaces.fix(root, f"{reading.kernel} reads only some of its channels, or in another order")
    spaces.settle()
    owners = {spaces.root(each.space): each for each in spaces.companions}
    # A companion of what is fixed is fixed, too, and stands alone.
    companions = {root: each for root, each in owners.items() if not spaces.reason(root)}
    channels = []
    for root, numbers in writers.items():
        if root in companions:
            continue
        if not spaces.reason(root) and root not in readings:
            spaces.fix(root, "no layer reads its channels")
        mine = [each for each in companions.items() if spaces.root(each[1].owner) == root]
        others = [spaces.writers[i] for other, _ in mine for i in writers[other]]
        # One tensor may multiply twice, with groups of other sizes.
        with_me = [each.width for each in spaces.companions if spaces.root(each.owner) == root]
        width = math.lcm(1, *with_me)
        if reason := spaces.reason(root):
            # What was a companion of channels that are fixed only now.
            for other, _ in mine:
                channels.append(
                    Channels(tuple(_writer(spaces, spaces.writers[i]) for i in writers[other]), fixed=reason)
                )
            channels.append(Channels(tuple(_writer(spaces, spaces.writers[i]) for i in numbers), fixed=reason))
            continue
        cut = {root, *(other for other, _ in mine)}
        vectors = tuple(dict.fromkeys(path for path, space in spaces.vectors if spaces.root(space) in cut))
        channels.append(_channels(spaces, numbers, readings[root], others, width, vectors))
    return tuple(channels)


def _channels(
    spaces: Spaces,
    numbers: Sequence[int],
    readings: Sequence[Reading],
    companions: Sequence[Draft],
    width: int,
    vectors: tuple[str, ...],
) -> Channels:
    """Describes channels that may be pruned."""
    # First those that the first readers see.
    seen = sorted({reading.state.seen for reading in readings}, key=len)
    order = sorted(numbers, key=lambda number: next((i for i, some in enumerate(seen) if number in some), len(seen)))
    activation = _activation(spaces, order, readings)
    readers = []
    for reading in readings:
        place = _places(spaces, reading)
        assert place is not None
        count = len(reading.state.seen)
        sums = None if activation is keeps_zero or count == len(numbers) else count
        readers.append(Reader(reading.kernel, place[0], reading.padded, sums, place[1]))
    return Channels(
        tuple(_writer(spaces, spaces.writers[number]) for number in order),
        tuple(readers),
        width,
        tuple(_writer(spaces, draft) for draft in companions),
        activation=activation,
        vectors=vectors,
    )


def _activation(spaces: Spaces, order: Sequence[int], readings: Sequence[Reading]) -> Activation:
    """The function that follows each sum that is read; `keeps_zero` if none of the known ones does."""
    for activation in ACTIVATIONS:
        value, written, fits = np.zeros_like(readings[0].state.sample), 0, True
        for count in sorted({len(reading.state.seen) for reading in readings}):
            value = activation(value + sum(spaces.writers[number].sample for number in order[written:count]))
            written = count
            for reading in readings:
                if len(reading.state.seen) == count:
                    fits &= reading.state.seen == set(order[:count])
                    fits &= np.allclose(reading.state.sample, value, rtol=1e-4, atol=1e-6)
        if fits:
            return activation
    return keeps_zero


def _places(spaces: Spaces, reading: Reading) -> tuple[int, int] | None:
    """How often a kernel's rows repeat all channels, and where these begin; None if they lie otherwise."""
    count = spaces.size(spaces.root(reading.space))
    positions = len(reading.rows) // count
    if positions * count != len(reading.rows) or not positions or reading.total % positions:
        return None
    order = np.argsort(reading.rows)
    rows, stride = reading.rows[order].reshape(positions, count), reading.total // positions
    start = int(rows[0, 0])
    regular = (rows == start + stride * np.arange(positions)[:, None] + np.arange(count)).all()
    return (
        (positions, start)
        if regular and (reading.channels[order].reshape(rows.shape) == np.arange(count)).all()
        else None
    )


def _writer(spaces: Spaces, draft: Draft) -> Writer:
    """The layer, with the bias and the normalization that are its own and stand behind its output always."""
    bias = draft.bias if spaces.alone(f"params/{draft.bias}") else ""
    leaves = [f"params/{draft.norm}/scale", f"params/{draft.norm}/bias"]
    leaves += [f"batch_stats/{draft.norm}/mean", f"batch_stats/{draft.norm}/var"]
    norm = draft.norm if all(spaces.alone(path) for path in leaves) else ""
    if len(draft.endings) > 1:
        bias = norm = ""
    return Writer(draft.kernel, bias, norm, EPSILON if draft.epsilon is None or not norm else draft.epsilon)
