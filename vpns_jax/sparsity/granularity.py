"""Granularity: which weights of a kernel stand or fall together.

Kernels are as Flax stores them: dense [in, out], attention's projections among them, and convolution [h, w, in, out].
The grains are those of Mao et al., arXiv 1705.08922, and N:M those of Zhou et al., arXiv 2102.04010:

| name | a group is |
| --- | --- |
| weight | one weight; of any array |
| kernel | the h x w weights from one input to one output channel; of convolutions |
| channel | all weights into one output channel: a filter, or a dense unit |
| input_channel | all weights out of one input channel |
| N:M | one weight, of which N are kept in every M inputs that follow each other at the same (h, w, out) |
| block:AxB | a tile of A inputs by B outputs; of dense layers |
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
      kind: as in `KNOWN`.
      size: (N, M) of N:M, (A, B) of a block; (1, 1) for the others.
    """

    kind: str = "weight"
    size: tuple[int, int] = (1, 1)

    def __str__(self) -> str:
        first, second = self.size
        return {"N:M": f"{first}:{second}", "block:AxB": f"block:{first}x{second}"}.get(self.kind, self.kind)


WEIGHT = Granularity("weight")


class Groups(NamedTuple):
    """How a kernel falls into groups.

    Attributes:
      shape: of the kernel.
      view: the shape it is seen in, where each group spans whole axes.
      within: those axes; the others count the groups.
    """

    shape: Shape
    view: Shape
    within: tuple[int, ...]

    @property
    def number(self) -> int:
        """How many groups there are."""
        return math.prod(n for axis, n in enumerate(self.view) if axis not in self.within)

    @property
    def size(self) -> int:
        """Weights in a group."""
        return math.prod(self.view[axis] for axis in self.within)

    def total(self, x: jax.Array) -> jax.Array:
        """The sum over each group, float32; `x` itself where groups are single weights."""
        return jnp.sum(x.reshape(self.view), self.within, dtype=jnp.float32) if self.within else x

    def spread(self, keep: jax.Array) -> jax.Array:
        """One value a group, given to each of its weights."""
        return jnp.broadcast_to(jnp.expand_dims(keep, self.within), self.view).reshape(self.shape)


def parse(text: str) -> Granularity:
    """Reads "weight", "kernel", "channel", "input_channel", "2:4" (any N:M) or "block:4x4" (any AxB).

    Raises:
      UserError: for another name (lists the known ones), N outside 1 ... M - 1, or a block without weights.
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
    """The groups of a kernel of `shape`, which `refusal` has nothing against; for N:M single weights.

    Args:
      width: so many output channels in a row are one, as in an attention head.
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
    """Why a kernel of `shape` cannot be pruned so; "" if it can."""
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
        return f"its {shape[-1]} output channels are no multiple of {width}, which go together"
    return ""
