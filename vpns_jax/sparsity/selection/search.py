"""Finds the k-th smallest of integers in many arrays by counting; nothing is sorted or moved.

One pass over the data counts how many keys lie below each of several pivots. The counts narrow the bracket that holds
the k-th smallest key. Only counts leave a device. `bisection` places the pivots evenly and takes a fixed number of
passes: on accelerators, it is the test whether to go on that costs time. `interpolation` takes fewer passes: it starts
from the bracket of a sample, then places the pivots where the counts so far predict the k-th smallest key. The result
never depends on these predictions.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from vpns_jax import xla
from vpns_jax.sparsity.selection.counting import count_apart, count_rows, count_together

# From arrays to int32 keys of the same shapes. Called again in each pass, so that keys are never stored.
Keys = Callable[[list[jax.Array]], list[jax.Array]]
# From keys and int32 pivots to how many keys lie below each pivot.
Count = Callable[[list[jax.Array], jax.Array], jax.Array]


class Bracket(NamedTuple):
    """Where the k-th smallest key is: low <= key < high, with under_low < k <= under_high. All are int32 scalars.

    Attributes:
      low: the lower end.
      high: the upper end, which is excluded.
      under_low: how many keys lie below `low`.
      under_high: how many keys lie below `high`.
    """

    low: jax.Array
    high: jax.Array
    under_low: jax.Array
    under_high: jax.Array

    @classmethod
    def of(cls, low: int, high: int, under_high: int) -> "Bracket":
        """Makes a bracket of Python numbers, with no key below `low`.

        Args:
          low: the lower end.
          high: the upper end.
          under_high: how many keys lie below `high`.

        Returns:
          The bracket.
        """
        return cls(jnp.int32(low), jnp.int32(high), jnp.int32(0), jnp.int32(under_high))

    @property
    def width(self) -> jax.Array:
        """The difference of the ends as uint32, since int32 may be too small for it."""
        return lax.bitcast_convert_type(self.high - self.low, jnp.uint32)


class Task(NamedTuple):
    """What to search for.

    Attributes:
      keys: computes the int32 keys of the arrays.
      exact: whether to narrow to a width of one. Otherwise a bracket with exactly k keys below `high` is enough, too.
      sampled: whether the keys of a sample of the arrays have the distribution of all keys.
      width: the most that the ends of the first bracket may be apart.
    """

    keys: Keys
    exact: bool
    sampled: bool
    width: int


# (task, arrays, k, start) -> a narrower bracket.
Search = Callable[[Task, list[jax.Array], jax.Array, Bracket], Bracket]


def by_platform(task: Task, arrays: list[jax.Array], k: jax.Array, start: Bracket) -> Bracket:
    """Narrows a bracket around the k-th smallest key, with the fastest algorithm of the platform.

    Args:
      task: what to search for.
      arrays: arrays of any shapes and shardings, with 1 ... 2**31 - 1 elements in all.
      k: int32 scalar, may be traced.
      start: a bracket that holds the k-th smallest key.

    Returns:
      The narrower bracket.
    """

    def run(search: Search) -> Callable[..., Bracket]:
        return lambda *operands: search(task, *operands)

    gpu = run(bisection_by_rows)
    return lax.platform_dependent(arrays, k, start, cpu=run(interpolation), cuda=gpu, rocm=gpu, default=run(bisection))


# With seven pivots a pass takes little longer than reading the keys. More pivots would cost more than they save.
_PARTS = 8


def bisection(task: Task, arrays: list[jax.Array], k: jax.Array, start: Bracket, count: Count = count_apart) -> Bracket:
    """Cuts the bracket into eight even parts in each pass, always down to a width of one.

    Args:
      task: what to search for.
      arrays: see `by_platform`.
      k: see `by_platform`.
      start: see `by_platform`.
      count: how to count the keys below pivots.

    Returns:
      The narrower bracket.
    """

    def narrow(_: int, packed: jax.Array) -> jax.Array:
        bracket = Bracket(*packed)
        return jnp.stack(_refine(task, arrays, k, bracket, _evenly(bracket, _PARTS), count))

    # As one array, which XLA for GPUs copies in one kernel instead of four in each pass.
    return Bracket(*lax.fori_loop(0, _passes(task.width), narrow, jnp.stack(start)))


def _passes(width: int) -> int:
    """How many passes cut a bracket of this width down to one; a part is at most one key wider than an eighth."""
    passes = 0
    while width > 1:
        width, passes = width // _PARTS + (width % _PARTS > 0), passes + 1
    return passes


def bisection_by_rows(task: Task, arrays: list[jax.Array], k: jax.Array, start: Bracket) -> Bracket:
    """`bisection` with the way of counting that is fast on GPUs.

    Args:
      task: what to search for.
      arrays: see `by_platform`.
      k: see `by_platform`.
      start: see `by_platform`.

    Returns:
      The narrower bracket.
    """
    return bisection(task, arrays, k, start, count_rows)


# Pivots on both sides of the expected place of the k-th smallest key, in units of the expected error. With the
# bracket's middle these are seven pivots, too.
_OFFSETS = (-2.4, -0.9, -0.3, 0.3, 0.9, 2.4)
_AROUND_SAMPLE = (-24, -2, -0.6, 0, 0.6, 2, 24)
# The sample takes every 64th slice. It is not worth its time for fewer elements than SAMPLE_FROM.
_STRIDE = 64
SAMPLE_FROM = 1 << 16


def interpolation(task: Task, arrays: list[jax.Array], k: jax.Array, start: Bracket) -> Bracket:
    """Places the pivots where a sample and the counts so far predict the k-th smallest key.

    Args:
      task: what to search for.
      arrays: see `by_platform`.
      k: see `by_platform`.
      start: see `by_platform`.

    Returns:
      The narrower bracket.
    """

    def going(bracket: Bracket) -> jax.Array:
        return (bracket.width > 1) & (task.exact | (bracket.under_high != k))

    sampled = task.sampled and _size(arrays) >= SAMPLE_FROM
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
    """Narrows the bracket while `going` says so; the first pass uses the given pivots."""

    def narrow(state: tuple[Bracket, jax.Array]) -> tuple[Bracket, jax.Array]:
        before, pivots = state
        after = _refine(task, arrays, k, before, pivots, count)
        distances, spread = _expected(after, k)
        # Even parts serve narrow brackets, brackets of unknown contents, and cases where the prediction failed.
        even = (after.width <= 2 * _PARTS) | (_OFFSETS[-1] * spread > after.width / 2)
        even |= after.width > before.width // _PARTS
        return after, jnp.where(even, _evenly(after, _PARTS), _place(after, distances))

    return lax.while_loop(lambda state: going(state[0]), narrow, (start, pivots))[0]


def _expected(bracket: Bracket, k: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pivots around the expected place of the k-th smallest key, as float32 distances from `low`; and the error.

    The place is interpolated linearly. Its expected error has two parts: chance, that of a Brownian bridge between the
    ends; and the uneven density of keys, which changes by about half within an octave of floats (2**23 keys).
    """
    inside = (bracket.under_high - bracket.under_low).astype(jnp.float32)
    share = ((k - bracket.under_low).astype(jnp.float32) - 0.5) / inside
    width = bracket.width.astype(jnp.float32)
    spread = width * (jnp.sqrt(share * (1 - share) / inside) + width / 2**28)
    # Pivots are at least one key apart, counted from the middle outwards.
    apart = jnp.arange(len(_OFFSETS), dtype=jnp.float32) - (len(_OFFSETS) - 1) / 2
    steps = jnp.array(_OFFSETS) * spread
    around = share * width + jnp.where(jnp.abs(steps) < jnp.abs(apart), apart, steps)
    return jnp.append(around, width / 2), spread


def _from_sample(task: Task, arrays: list[jax.Array], k: jax.Array, start: Bracket) -> jax.Array:
    """Pivots around the bracket that a sample of the arrays gives; they reach as far as the sample may err."""
    count = functools.partial(count_together, stride=_STRIDE)
    drawn = _below(task, arrays, jnp.stack([start.high, start.high]), count)[0]
    share = (k.astype(jnp.float32) - 0.5) / _size(arrays)
    rank = jnp.clip(jnp.round(share * drawn).astype(jnp.int32), 1, drawn)
    error = jnp.sqrt(drawn * share * (1 - share))

    def going(bracket: Bracket) -> jax.Array:
        return (bracket.width > 1) & (bracket.under_high - bracket.under_low > 4 * error)

    everything = start._replace(under_high=drawn)
    narrow = _interpolate(task, arrays, rank, everything, _evenly(start, _PARTS), going, count)
    width = narrow.width.astype(jnp.float32)
    middle = lax.bitcast_convert_type(narrow.low - start.low, jnp.uint32).astype(jnp.float32) + width / 2
    spread = width * (error / (narrow.under_high - narrow.under_low).astype(jnp.float32) + 0.25)
    return _place(start, middle + spread * jnp.array(_AROUND_SAMPLE))


def _evenly(bracket: Bracket, parts: int) -> jax.Array:
    """The `parts - 1` pivots that cut the bracket into `parts` even parts, int32."""
    whole, rest = bracket.width // parts, bracket.width % parts
    steps = jnp.arange(1, parts, dtype=jnp.uint32)
    # A narrow bracket has fewer keys than parts; no part may be empty.
    return bracket.low + lax.bitcast_convert_type(jnp.maximum(whole * steps + rest * steps // parts, 1), jnp.int32)


def _place(bracket: Bracket, distances: jax.Array) -> jax.Array:
    """int32 pivots at the given float32 distances from `low`, moved inside the bracket."""
    inside = jnp.clip(jnp.round(distances), 1, bracket.width.astype(jnp.float32) - 1)
    return bracket.low + lax.bitcast_convert_type(inside.astype(jnp.uint32), jnp.int32)


def _refine(
    task: Task, arrays: list[jax.Array], k: jax.Array, bracket: Bracket, pivots: jax.Array, count: Count
) -> Bracket:
    """One pass over the data: the bracket between the two neighboring pivots that enclose the k-th smallest key."""
    under = _below(task, arrays, pivots, count)
    few = under < k
    return Bracket(
        low=jnp.max(jnp.where(few, pivots, bracket.low)),
        high=jnp.min(jnp.where(few, bracket.high, pivots)),
        under_low=jnp.max(jnp.where(few, under, bracket.under_low)),
        under_high=jnp.min(jnp.where(few, bracket.under_high, under)),
    )


def _below(task: Task, arrays: list[jax.Array], pivots: jax.Array, count: Count) -> jax.Array:
    """Counts the keys below the pivots. Keys are computed again in every pass; otherwise XLA stores them all."""
    arrays, pivots = xla.tied(arrays, pivots)
    return count(task.keys(arrays), pivots)


def _size(arrays: list[jax.Array]) -> int:
    return sum(array.size for array in arrays)
