"""What the tracer knows of an array: which channels its elements belong to, or which parameters they come from."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from vpns_jax.models.tracing import places, pointwise

# Instead of a channel: an element that is zero always, and one that no known layer writes.
ZERO, FREE = -2, -1
UNKNOWN = np.full(pointwise.SIZE, np.nan)
# The most elements of constants that are computed.
SMALL = 1_000_000
# Zero if all writers say zero, and unknown otherwise.
KEEPS_ZERO = np.where(np.arange(pointwise.SIZE) == 0, 0.0, np.nan)


class Open(NamedTuple):
    """A layer's output to which only parameters of the layer itself were applied so far.

    Attributes:
      writer: the layer's number.
      factor: a sample of what the kernel's output was multiplied by.
      shift: a sample of what was added then.
      paths: the parameters in both.
    """

    writer: int
    factor: np.ndarray
    shift: np.ndarray
    paths: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """What the channels of one tensor have become on their way.

    Attributes:
      sample: see `pointwise`. The first entry is zero if a channel stays zero that its writers leave zero.
      seen: the numbers of the layers that wrote to it so far.
      padded: whether zeros were put around the image.
      open: the layer that has just written, if its bias or batch normalization may follow.
    """

    sample: np.ndarray
    seen: frozenset[int] = frozenset()
    padded: bool = False
    open: Open | None = None

    @property
    def keeps_zero(self) -> bool:
        """Whether a channel is zero here if its writers leave it zero."""
        return bool(self.sample[0] == 0)

    def unsure(self) -> "State":
        """The state after an operation that keeps zero and does something unknown to other constants."""
        return dataclasses.replace(self, sample=KEEPS_ZERO if self.keeps_zero else UNKNOWN)


@dataclasses.dataclass(frozen=True, eq=False)
class Label:
    """The channels to which an array's elements belong.

    Attributes:
      channels: the number of each element's channel, or `ZERO` or `FREE`; see `places`.
      states: by tensor, what its channels have become.
      width: above 1, each element depends on so many consecutive channels, of which the first one is named.
    """

    channels: np.ndarray
    states: Mapping[int, State]
    width: int = 1

    @property
    def axes(self) -> frozenset[int]:
        """The axes along which there are different channels."""
        return places.varied(self.channels)

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> "Label":
        """The label after an operation that only moves elements."""
        return dataclasses.replace(self, channels=move(self.channels))

    def unsure(self) -> "Label":
        """The label after an operation that keeps zero and does something unknown to other constants."""
        return dataclasses.replace(self, states={space: state.unsure() for space, state in self.states.items()})


class Total(NamedTuple):
    """What is known of an array of sums.

    Attributes:
      value: the array that was summed over.
      axes: the axes of `value` that were summed over.
      layout: for each axis of the sums, the axis of `value` that lies there; None for an axis that is new.
    """

    value: Any
    axes: frozenset[int]
    layout: tuple[int | None, ...]

    def weights(self, value: Any) -> frozenset[int]:
        """The axes along which an array's elements add up to one, if it is divided by these sums.

        Args:
          value: the array.

        Returns:
          The axes; none if the array is not the one that was summed over.
        """
        fits = value is self.value and len(self.layout) == len(value.shape)
        wanted = tuple(None if i in self.axes else i for i in range(len(value.shape)))
        return self.axes if fits and self.layout == wanted else frozenset()


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A traced array.

    Attributes:
      shape: its shape.
      data: whether it depends on the images.
      labels: the channels that its elements belong to; an element can belong to channels along several axes.
      sources: for each axis of each parameter that it is made of, the index of each element; None if that is lost.
      pure: the parameter whose elements it holds, all of them and unchanged; "" if there is none.
      sample: what an element without channels is.
      constant: the numbers of an array that depends on nothing, as in `places`; None if unknown.
      total: of sums, what they are sums of; None of anything else.
      weights: axes along which all elements are shares that add up to one.
      equal: axes along which all elements of data are known to be equal.
    """

    shape: tuple[int, ...]
    data: bool = False
    labels: tuple[Label, ...] = ()
    sources: Mapping[tuple[str, int], np.ndarray | None] = dataclasses.field(default_factory=dict)
    pure: str = ""
    sample: np.ndarray = dataclasses.field(default_factory=lambda: UNKNOWN)
    constant: np.ndarray | None = None
    total: Total | None = None
    weights: frozenset[int] = frozenset()
    equal: frozenset[int] = frozenset()

    @property
    def paths(self) -> frozenset[str]:
        """The parameters that it is made of."""
        return frozenset(path for path, _ in self.sources)

    @property
    def is_zero(self) -> bool:
        """Whether all its elements are zero."""
        return self.constant is not None and not self.constant.any()

    def moved(self, shape: tuple[int, ...], move: Callable[[np.ndarray], np.ndarray], *, whole: bool = True) -> "Value":
        """The array after an operation that only moves elements.

        Args:
          shape: the new shape.
          move: moves arrays of `places`.
          whole: whether no element is left out or doubled.

        Returns:
          The array.
        """
        return Value(
            shape,
            self.data,
            tuple(label.moved(move) for label in self.labels),
            {source: None if where is None else move(where) for source, where in self.sources.items()},
            self.pure if whole else "",
            self.sample,
            None if self.constant is None else move(self.constant),
        )


def literal(number: np.ndarray) -> Value:
    """Describes an array that depends on nothing.

    Args:
      number: its numbers.
    """
    constant = None
    if number.size <= SMALL:
        # Keys of random numbers, for example, are no numbers.
        with contextlib.suppress(TypeError, ValueError):
            constant = places.compress(number.astype(np.float64))
    return fixed_number(number.shape, constant)


def fixed_number(shape: tuple[int, ...], constant: np.ndarray | None) -> Value:
    """Describes an array that depends on nothing.

    Args:
      shape: its shape.
      constant: its numbers, as in `places`; None if unknown.
    """
    sample = np.full(pointwise.SIZE, constant.item()) if constant is not None and constant.size == 1 else UNKNOWN
    return Value(shape, sample=sample, constant=constant)


def parameter(path: str, shape: tuple[int, ...], sample: np.ndarray) -> Value:
    """Describes a parameter or a running statistic.

    Args:
      path: its path in the variables.
      shape: its shape.
      sample: random numbers.
    """
    sources: dict[tuple[str, int], np.ndarray | None] = {(path, i): places.along(i, shape) for i in range(len(shape))}
    return Value(shape, sources=sources or {(path, 0): np.zeros(())}, pure=path, sample=sample)
