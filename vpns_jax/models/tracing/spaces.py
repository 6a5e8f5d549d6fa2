"""What the tracer collects: tensors of channels, which of them are one, who writes and reads them, and what is fixed.

A tensor of channels begins as the output of one kernel. Channels are numbered through all tensors.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from vpns_jax.models.tracing import pointwise
from vpns_jax.models.tracing.values import Label, State


@dataclasses.dataclass
class Draft:
    """A layer that writes channels.

    Attributes:
      space: its tensor.
      kernel: the path of its kernel.
      sample: the constants that it says.
      bias: the path of its bias; "" if it has none.
      shift: a sample of that bias; zero if it has none.
      norm: that of its batch normalization; "" if it has none.
      epsilon: what that adds to the variance.
      endings: the parameters behind which its output is used; several sets if it is used before its normalization, too.
    """

    space: int
    kernel: str
    sample: np.ndarray
    bias: str = ""
    shift: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(pointwise.SIZE))
    norm: str = ""
    epsilon: float | None = None
    endings: set[frozenset[str]] = dataclasses.field(default_factory=set)


class Reading(NamedTuple):
    """A kernel that reads a tensor: which of its `total` rows read which channels, and what these have become."""

    kernel: str
    space: int
    rows: np.ndarray
    channels: np.ndarray
    total: int
    padded: bool
    state: State


class Companion(NamedTuple):
    """A tensor that is used for nothing but to multiply another one, `width` consecutive channels with as many."""

    space: int
    owner: int
    width: int


class Spaces:
    """All tensors of channels of one network.

    Attributes:
      writers: the layers that write channels, in the order of the trace.
      readings: who reads them.
      companions: which tensors only multiply others.
      vectors: parameters that scale the channels of a tensor, with that tensor.
    """

    def __init__(self) -> None:
        self.writers: list[Draft] = []
        self.readings: list[Reading] = []
        self.companions: list[Companion] = []
        self.vectors: list[tuple[str, int]] = []
        self._sizes: list[int] = []
        self._first: list[int] = [0]
        self._parent: list[int] = []
        self._reasons: dict[int, str] = {}
        self._roles: dict[str, dict[Any, int | None]] = {}
        self._rng = np.random.default_rng(0)

    def draw(self) -> np.ndarray:
        """A new random sample of what a layer says; the first entry is zero."""
        sizes = np.resize(pointwise.SCALES, pointwise.SIZE - 1) * self._rng.uniform(0.5, 1.5, pointwise.SIZE - 1)
        return np.concatenate([[0.0], sizes * self._rng.choice([-1.0, 1.0], sizes.size)])

    def draw_parameter(self, *, positive: bool) -> np.ndarray:
        """A new random sample of a parameter; no entry is zero.

        Args:
          positive: whether all are positive, as variances are; the absolute values of others are something else.
        """
        sizes = self._rng.uniform(0.5, 1.5, pointwise.SIZE)
        return sizes if positive else sizes * self._rng.choice([-1.0, 1.0], pointwise.SIZE)

    def open(self, size: int) -> int:
        """Begins a tensor.

        Args:
          size: its number of channels.

        Returns:
          Its number.
        """
        space = len(self._sizes)
        self._sizes.append(size)
        self._first.append(self._first[-1] + size)
        self._parent.append(space)
        if size < 2:
            self.fix(space, "it has fewer than two output channels")
        return space

    def write(self, space: int, kernel: str) -> int:
        """Adds a layer that writes to a tensor.

        Args:
          space: the tensor.
          kernel: the path of the layer's kernel.

        Returns:
          The layer's number.
        """
        self.writers.append(Draft(space, kernel, self.draw()))
        return len(self.writers) - 1

    def first(self, space: int) -> int:
        """The number of a tensor's first channel."""
        return self._first[space]

    def root(self, space: int) -> int:
        """The first of all tensors that turned out to be one with this one."""
        while self._parent[space] != space:
            space = self._parent[space]
        return space

    def size(self, space: int) -> int:
        """How many channels a tensor has."""
        return self._sizes[space]

    def locate(self, channels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Finds the tensors of channels.

        Args:
          channels: numbers of channels, none negative.

        Returns:
          For each its tensor, and its index there.
        """
        space = np.searchsorted(np.asarray(self._first), channels, side="right") - 1
        roots = np.asarray([self.root(i) for i in range(len(self._parent))], int)
        return roots[space], channels - np.asarray(self._first)[space]

    def join(self, one: int, other: int) -> None:
        """Makes two tensors one: channel i of both is pruned or kept together."""
        first, last = sorted((self.root(one), self.root(other)))
        if first != last:
            self._parent[last] = first
            if last in self._reasons:
                self._reasons.setdefault(first, self._reasons[last])

    def fix(self, space: int, reason: str) -> None:
        """Says that no channel of a tensor may be pruned; the first reason stays."""
        self._reasons.setdefault(self.root(space), reason)

    def fix_all(self, labels: Iterable[Label], reason: str) -> None:
        """Says that no channel may be pruned of any tensor that some arrays hold.

        Args:
          labels: the arrays' labels.
          reason: why.
        """
        for label in labels:
            for space in label.states:
                self.fix(space, reason)

    def alone(self, path: str) -> bool:
        """Whether a parameter is used once."""
        return len(self._roles.get(path, {})) <= 1

    def reason(self, space: int) -> str:
        """Why no channel of a tensor may be pruned; "" if channels may be pruned."""
        return self._reasons.get(self.root(space), "")

    def use(self, path: str, role: Any, space: int | None) -> None:
        """Notes what a parameter is used for.

        Args:
          path: the parameter.
          role: any value; equal values stand for one use.
          space: the tensor that would be cut wrongly if the parameter had another use, too; None if none would.
        """
        self._roles.setdefault(path, {})[role] = space

    def settle(self) -> None:
        """Fixes what hangs together: layers and parameters with several uses, and companions of what is fixed."""
        for path, roles in self._roles.items():
            if len(roles) > 1:
                read = [reading.space for reading in self.readings if f"params/{reading.kernel}" == path]
                for space in (*roles.values(), *read):
                    if space is not None:
                        self.fix(space, f"{path} is used in several places")
        for draft in self.writers:
            if len(draft.endings) > 1:
                self.fix(draft.space, f"the output of {draft.kernel} is used before its bias or normalization, too")
        owners: dict[int, set[int]] = {}
        for companion in self.companions:
            owners.setdefault(self.root(companion.space), set()).add(self.root(companion.owner))
        readers = {self.root(reading.space) for reading in self.readings}
        changed = True
        while changed:
            changed = False
            for space, roots in owners.items():
                group = {space, *roots}
                alone = len(roots) == 1 and space not in readers and space not in roots and not roots & owners.keys()
                reasons = [self.reason(each) for each in group if self.reason(each)]
                reasons += [] if alone else ["it multiplies channels of several layers"]
                for each in group:
                    if reasons and not self.reason(each):
                        self.fix(each, reasons[0])
                        changed = True
