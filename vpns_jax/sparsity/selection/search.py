"""The k-th smallest of integers that are spread over many arrays, by counting: nothing is sorted or moved.

One pass over the data counts how many keys lie below each of several pivots, which narrows the bracket that holds
the k-th smallest. Only these counts leave a device. `bisection` places the pivots evenly, in a fixed number of
passes: for accelerators, where asking whether to go on is what costs. `interpolation` needs fewer passes: it starts
from the bracket of a sample, and then places the pivots where the counts so far say the k-th smallest should be. What
is found never depends on the guess.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from vpns_jax import xla
from vpns_jax.sparsity.selection.counting import count_apart, count_rows, count_together

# From arrays to int32 keys of the same shapes. Called anew in each pass, so that keys are never stored.
Keys = Callable[[list[jax.Array]], list[jax.Array]]
# From keys and int32 pivots to how many lie below each pivot.
Count = Callable[[list[jax.Array], jax.Array], jax.Array]


class Bracket(NamedTuple):
    """Where the k-th smallest key is: low <= key < high. All int32 scalars.

    Attributes:
      under_low, under_high: how many keys lie below the ends; under_low < k <= under_high.
    """

    low: jax.Array
    high: jax.Array
    under_low: jax.Array
    under_high: jax.Array

    @classmethod
    def of(cls, low: int, high: int, under_high: int) -> "Bracket":
        """From numbers, nothing below `low`."""
        return cls(jnp.int32(low), jnp.int32(high), jnp.int32(0), jnp.int32(under_high))

    @property
    def width(self) -> jax.Array:
        """uint32, as an int32 may not hold it."""
        return lax.bitcast_convert_type(self.high - self.low, jnp.uint32)


class Task(NamedTuple):
    """What is searched for.

    Attributes:
      keys: gives the int32 keys of the arrays.
      exact: whether to narrow to a width of one. Otherwise a bracket with exactly k keys below `high` will do.
      sampled: whether a sample of the arrays tells of their keys.
    """

    keys: Keys
    exact: bool
    sampled: bool


# (task, arrays, k, start) -> a narrower bracket.
Search = Callable[[Task, list[jax.Array], jax.Array, Bracket], Bracket]


def by_platform(task: Task, arrays: list[jax.Array], k: jax.Array, start: Bracket) -> Bracket:
    """Narrows `start` around the k-th smallest key, with the algorithm that suits the platform.

    Args:
      arrays: of any shapes and shardings, with 1 ... 2**31 - 1 elements in all.
      k: int32 scalar, may be traced.
      start: holds the k-th smallest.
    """

    def run(search: Search) -> Callable[..., Bracket]:
        return lambda *operands: search(task, *operands)

    gpu = run(bisection_by_rows)
    return lax.platform_dependent(arrays, k, start, cpu=run(interpolation), cuda=gpu, rocm=gpu, default=run(bisection))


# With seven pivots a pass takes little longer than reading the keys; more cost more time than the passes they save.
_PARTS = 8


def bisection(task: Task, arrays: list[jax.Array], k: jax.Array, start: Bracket, count: Count = count_apart) -> Bracket:
    """See `by_platform`: eight even parts a pass, always to a width of one."""

    def narrow(_: int, bracket: Bracket) -> Bracket:
        return _refine(task, arrays, k, bracket, _evenly(bracket, _PARTS), count)

    # 8**11 is 2**33, more than the widest bracket.
    return lax.fori_loop(0, 11, narrow, start)


def bisection_by_rows(task: Task, arrays: list[jax.Array], k: jax.Array, start: Bracket) -> Bracket:
    """`bisection` as GPUs count."""
    return bisection(task, arrays, k, start, count_rows)


# Pivots on both sides of the place where the k-th smallest is expected, in units of the expected error.
# With the middle these are seven, too.
_OFFSETS = (-2.4, -0.9, -0.3, 0.3, 0.9, 2.4)
_AROUND_SAMPLE = (-24, -2, -0.6, 0, 0.6, 2, 24)
# What the sample takes; arrays of fewer elements in all are not worth one.
_STRIDE = 64
_SAMPLE_FROM = 1 << 16


def interpolation(task: Task, arrays: list[jax.Array], k: jax.Array, start: Bracket) -> Bracket:
    """See `by_platform`: pivots where the counts so far and a sample say the k-th smallest should be."""

    def going(bracket: Bracket) -> jax.Array:
        return (bracket.width > 1) & (task.exact | (bracket.under_high != k))

    sampled = task.sampled and _size(arrays) >= _SAMPLE_FROM
    pivots = _from_sample(task, arrays, k, start) if sampled else _evenly(start, _PARTS)
    return _interpolate(task, arrays, k, start, pivots, going)


def _interpolate(
    task: Task,
    arrays: list[jax.Array],
    k: jax.Array,
    start: Bracket,
    pivots: jax.Array,
    going: Callable[[Bracket], jax.Array],
    count: Count = count_together,
) -> Bracket:
    """Narrows while `going`, by the given pivots first."""

    def narrow(state: tuple[Bracket, jax.Array]) -> tuple[Bracket, jax.Array]:
        before, pivots = state
        after = _refine(task, arrays, k, before, pivots, count)
        distances, spread = _expected(after, k)
        # Even parts are for what is narrow, for where nothing is known, and for when the guess led astray.
        even = (after.width <= 2 * _PARTS) | (_OFFSETS[-1] * spread > after.width / 2)
        even |= after.width > before.width // _PARTS
        return after, jnp.where(even, _evenly(after, _PARTS), _place(after, distances))

    return lax.while_loop(lambda state: going(state[0]), narrow, (start, pivots))[0]


def _expected(bracket: Bracket, k: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pivots around the place of the k-th smallest, as float32 distances from `low`, and the error expected of it.

    Interpolated linearly. The error has two parts: chance, as of a Brownian bridge between the ends; and a density
    that is not even, about half of itself within an octave of floats (2**23 keys).
    """
    inside = (bracket.under_high - bracket.under_low).astype(jnp.float32)
    share = ((k - bracket.under_low).astype(jnp.float32) - 0.5) / inside
    width = bracket.width.astype(jnp.float32)
    spread = width * (jnp.sqrt(share * (1 - share) / inside) + width / 2**28)
    # At least a key apart, from the middle outwards.
    apart = jnp.arange(len(_OFFSETS), dtype=jnp.float32) - (len(_OFFSETS) - 1) / 2
    steps = jnp.array(_OFFSETS) * spread
    around = share * width + jnp.where(jnp.abs(steps) < jnp.abs(apart), apart, steps)
    return jnp.append(around, width / 2), spread


def _from_sample(task: Task, arrays: list[jax.Array], k: jax.Array, start: Bracket) -> jax.Array:
    """Pivots around the bracket that a sample of the arrays gives, as far out as the sample may err."""
    count = functools.partial(count_together, stride=_STRIDE)
    drawn = _below(task, arrays, jnp.stack([start.high, start.high]), count)[0]
    share = (k.astype(jnp.float32) - 0.5) / _size(arrays)
    rank = jnp.clip(jnp.round(share * drawn).astype(jnp.int32), 1, drawn)
    error = jnp.sqrt(drawn * share * (1 - share))

    def going(bracket: Bracket) -> jax.Array:
        return (bracket.width > 1) & (bracket.under_high - bracket.under_low > 4 * error)

    everything = start._replace(under_high=drawn)
    found = _interpolate(task, arrays, rank, everything, _evenly(start, _PARTS), going, count)
    width = found.width.astype(jnp.float32)
    middle = lax.bitcast_convert_type(found.low - start.low, jnp.uint32).astype(jnp.float32) + width / 2
    spread = width * (error / (found.under_high - found.under_low).astype(jnp.float32) + 0.25)
    return _place(start, middle + spread * jnp.array(_AROUND_SAMPLE))


def _evenly(bracket: Bracket, parts: int) -> jax.Array:
    """The `parts - 1` pivots of `parts` even parts, int32."""
    whole, rest = bracket.width // parts, bracket.width % parts
    steps = jnp.arange(1, parts, dtype=jnp.uint32)
    # A narrow bracket has fewer parts than asked for; none may be empty of keys.
    return bracket.low + lax.bitcast_convert_type(jnp.maximum(whole * steps + rest * steps // parts, 1), jnp.int32)


def _place(bracket: Bracket, distances: jax.Array) -> jax.Array:
    """int32 pivots at float32 distances from `low`, moved inside the bracket."""
    inside = jnp.clip(jnp.round(distances), 1, bracket.width.astype(jnp.float32) - 1)
    return bracket.low + lax.bitcast_convert_type(inside.astype(jnp.uint32), jnp.int32)


def _refine(
    task: Task, arrays: list[jax.Array], k: jax.Array, bracket: Bracket, pivots: jax.Array, count: Count
) -> Bracket:
    """One pass over the data: the bracket between those pivots that hold the k-th smallest between them."""
    under = _below(task, arrays, pivots, count)
    few = under < k
    return Bracket(
        low=jnp.max(jnp.where(few, pivots, bracket.low)),
        high=jnp.min(jnp.where(few, bracket.high, pivots)),
        under_low=jnp.max(jnp.where(few, under, bracket.under_low)),
        under_high=jnp.min(jnp.where(few, bracket.under_high, under)),
    )


def _below(task: Task, arrays: list[jax.Array], pivots: jax.Array, count: Count) -> jax.Array:
    """`count` of the keys, computed anew in every pass, or XLA stores all keys ahead of the loop."""
    arrays, pivots = xla.tied(arrays, pivots)
    return count(task.keys(arrays), pivots)


def _size(arrays: list[jax.Array]) -> int:
    return sum(array.size for array in arrays)
