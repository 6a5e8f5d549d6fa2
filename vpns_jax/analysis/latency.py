"""Whether a mask makes a device faster, as measured: dense and masked passes in turn, in pairs."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

PAIRS = 9


def compare(
    dense: Callable[[], Any], masked: Callable[[], Any], *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Times the same batch through the dense network and through the masked one.

    Each goes once beforehand, for what happens only once; then both in turn, so that what slows the machine for a
    while slows both, and in either order.

    Args:
      dense, masked: each runs one batch and returns its arrays.
      clock: seconds.

    Returns:
      `dense` and `masked`, median seconds; `speedup`, the median of dense over masked within a pair, `least` and
      `most`, the ends of those, and `pairs`, their number; `faster`, whether the masked network was the faster one in
      every pair (which, were both alike, chance would have in one of 2^`pairs` cells).
    """
    taken: dict[Callable[[], Any], list[float]] = {dense: [], masked: []}
    for call in (dense, masked):
        jax.block_until_ready(call())
    for number in range(PAIRS):
        for call in (dense, masked) if number % 2 else (masked, dense):
            began = clock()
            jax.block_until_ready(call())
            taken[call].append(clock() - began)
    ratios = [one / other for one, other in zip(taken[dense], taken[masked], strict=True)]
    return {
        "dense": statistics.median(taken[dense]),
        "masked": statistics.median(taken[masked]),
        "speedup": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "pairs": PAIRS,
        "faster": min(ratios) > 1,
    }


def sentence(found: Mapping[str, Any]) -> str:
    """What `compare` found, in words."""
    does = "makes" if found["faster"] else "does not make"
    times = f"{1e3 * found['masked']:.3g} ms a batch masked, {1e3 * found['dense']:.3g} ms dense"
    ratio = f"{found['speedup']:.2f} ({found['least']:.2f} to {found['most']:.2f})"
    return f"This mask {does} this device faster: {times}; within {found['pairs']} pairs dense over masked is {ratio}."
