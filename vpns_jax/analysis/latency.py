"""Measures whether a mask makes a device faster: dense and masked passes are timed in alternating pairs."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

PAIRS = 9


def compare(
    dense: Callable[[], Any], masked: Callable[[], Any], *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Times the same batch through the dense network and the masked network.

    Both run once before, to compile. Then they run in pairs, in alternating order, so that a temporary slowdown of the
    machine affects both.

    Args:
      dense: runs one batch through the dense network and returns its arrays.
      masked: runs one batch through the masked network and returns its arrays.
      clock: returns the time in seconds.

    Returns:
      `dense` and `masked`, median seconds; `speedup`, the median over pairs of dense over masked time; `least` and
      `most`, the smallest and largest of these ratios; `pairs`, the number of pairs; and `faster`, whether the masked
      network was faster in every pair (for equal networks, the probability of this is 1 / 2^`pairs`).
    """
    taken: dict[Callable[[], Any], list[float]] = {dense: [], masked: []}
    for call in (dense, masked):
        jax.block_until_ready(call())
    for number in range(PAIRS):
        for call in (dense, masked) if number % 2 else (masked, dense):
            start = clock()
            jax.block_until_ready(call())
            taken[call].append(clock() - start)
    ratios = [dense_time / masked_time for dense_time, masked_time in zip(taken[dense], taken[masked], strict=True)]
    return {
        "dense": statistics.median(taken[dense]),
        "masked": statistics.median(taken[masked]),
        "speedup": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "pairs": PAIRS,
        "faster": min(ratios) > 1,
    }


def sentence(times: Mapping[str, Any]) -> str:
    """The result of `compare` in words."""
    does = "makes" if times["faster"] else "does not make"
    medians = f"{1e3 * times['masked']:.3g} ms a batch masked, {1e3 * times['dense']:.3g} ms dense"
    ratio = f"{times['speedup']:.2f} ({times['least']:.2f} to {times['most']:.2f})"
    return (
        f"This mask {does} this device faster: {medians}; within {times['pairs']} pairs dense over masked is {ratio}."
    )
