"""Granularity: which weights of a kernel are kept or pruned together.

Kernels have the shapes of Flax: dense layers (attention's projections, too) [in, out], convolutions [h, w, in, out].
The granularities are those of Mao et al., arXiv 1705.08922; N:M is that of Zhou et al., arXiv 2102.04010:

| name | a group is |
| --- | --- |
| weight | one weight, of any array |
| kernel | the h x w weights from one input channel to one output channel of a convolution |
| channel | all weights of one output channel: a filter, or a dense unit |
| input_channel | all weights of one input channel |
| N:M | one weight; N are kept of every M consecutive inputs at the same (h, w, out) |
| block:AxB | a tile of A inputs by B outputs of a dense layer |
"""

import dataclasses
import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vpns_jax.errors import UserError, check_name

Shape = tuple[int, ...]

KNOWN = ("weight", "kernel", "channel", "input_channel", "N:M", "block:AxB")


@dataclasses.dataclass(frozen=True)
class Granularity:
    """One of `KNOWN`, as `parse` reads it. Hashable.

    Attributes:
      kind: one of `KNOWN`.
      size: (N, M) of N:M, (A, B) of a block, (1, 1) of the others.
    """

    kind: str = "weight"
    size: tuple[int, int] = (1, 1)

    @property
    def n_of_m(self) -> tuple[int, int] | None:
        """N and M, if N of every M weights are kept."""
        return self.size if self.kind == "N:M" else None

    @property
    def is_single(self) -> bool:
        """Whether single weights are ranked, and no groups."""
        return self.kind in ("weight", "N:M")

    def __str__(self) -> str:
        first, second = self.size
        return {"N:M": f"{first}:{second}", "block:AxB": f"block:{first}x{second}"}.get(self.kind, self.kind)


WEIGHT = Granularity("weight")


class Groups(NamedTuple):
    """How a kernel is divided into groups.

    Attributes:
      shape: the kernel's shape.
      view: the shape into which the kernel is reshaped, so that each group spans whole axes.
      within: the axes of `view` that a group spans; the other axes count the groups.
    """

    shape: Shape
    view: Shape
    within: tuple[int, ...]

    @property
    def number(self) -> int:
        """The number of groups."""
        return math.prod(n for axis, n in enumerate(self.view) if axis not in self.within)

    @property
    def size(self) -> int:
        """The number of weights in a group."""
        return math.prod(self.view[axis] for axis in self.within)

    def total(self, x: jax.Array) -> jax.Array:
        """The sum of `x` over each group, float32; `x` itself where groups are single weights."""
        return jnp.sum(x.reshape(self.view), self.within, dtype=jnp.float32) if self.within else x

    def first(self, x: jax.Array) -> jax.Array:
        """The first element of each group; `x` itself where groups are single weights."""
        return x.reshape(self.view)[tuple(0 if axis in self.within else slice(None) for axis in range(len(self.view)))]

    def spread(self, keep: jax.Array) -> jax.Array:
        """Gives each weight the value of its group: an array of the kernel's shape."""
        return jnp.broadcast_to(jnp.expand_dims(keep, self.within), self.view).reshape(self.shape)


def parse(text: str) -> Granularity:
    """Reads a granularity's name.

    Args:
      text: "weight", "kernel", "channel", "input_channel", "2:4" (any N:M) or "block:4x4" (any AxB).

    Returns:
      The granularity.

    Raises:
      UserError: the name is unknown (the error lists the known ones), N is outside 1 ... M - 1, or a block has no
        weights.
    """
    if pair := re.fullmatch(r"(\d+):(\d+)", text):
        n, m = int(pair[1]), int(pair[2])
        if not 1 <= n < m:
            raise UserError(f"granularity {text!r} keeps {n} of every {m} weights; N:M needs 1 <= N < M, such as 2:4")
        return Granularity("N:M", (n, m))
    if pair := re.fullmatch(r"block:(\d+)x(\d+)", text):
        a, b = int(pair[1]), int(pair[2])
        if a * b == 0:
            raise UserError(f"granularity {text!r} has blocks without weights; both sides must be at least 1")
        return Granularity("block:AxB", (a, b))
    if text in ("N:M", "block:AxB"):
        raise UserError(f"granularity {text!r} needs numbers, such as 2:4 or block:4x4")
    check_name("granularity", text, KNOWN)
    return Granularity(text)


def groups(granularity: Granularity, shape: Shape, width: int = 1) -> Groups:
    """The groups of a kernel; for N:M these are single weights.

    Args:
      granularity: which weights make a group.
      shape: the kernel's shape, for which `refusal` gives no reason.
      width: how many consecutive output channels count as one, as in an attention head.

    Returns:
      The groups.
    """
    axes = tuple(range(len(shape)))
    if granularity.kind == "kernel":
        return Groups(shape, shape, axes[:2])
    if granularity.kind == "channel":
        return Groups(shape, (*shape[:-1], shape[-1] // width, width), (*axes[:-1], axes[-1] + 1))
    if granularity.kind == "input_channel":
        return Groups(shape, shape, (*axes[:-2], axes[-1]))
    if granularity.kind == "block:AxB":
        (rows, columns), (a, b) = shape, granularity.size
        return Groups(shape, (rows // a, a, columns // b, b), (1, 3))
    return Groups(shape, shape, ())


def refusal(granularity: Granularity, shape: Shape, width: int = 1) -> str:
    """The reason why a kernel cannot be pruned at a granularity.

    Args:
      granularity: which weights make a group.
      shape: the kernel's shape.
      width: how many consecutive output channels count as one, as in an attention head.

    Returns:
      A clause for an error message; "" if the kernel can be pruned.
    """
    kind, (first, second) = granularity.kind, granularity.size
    if kind == "weight":
        return ""
    if kind == "kernel" and len(shape) != 4:
        return "only convolutions [h, w, in, out] have kernels of h x w"
    if kind == "block:AxB" and len(shape) != 2:
        return "blocks are for dense layers [in, out]"
    if len(shape) < 2:
        return "it has no input and output axes [..., in, out]"
    if kind == "N:M" and shape[-2] % second:
        return f"its {shape[-2]} inputs are no multiple of {second}"
    if kind == "block:AxB" and (shape[0] % first or shape[1] % second):
        return f"blocks of {first} x {second} do not tile it"
    if kind == "channel" and shape[-1] % width:
        return f"its {shape[-1]} output channels are no multiple of {width}, the number that is pruned together"
    return ""
