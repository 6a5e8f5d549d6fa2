"""Latency measurements with a fake clock."""

import pytest

from vpns_jax.analysis import latency


def compare(dense, masked):
    """Compares calls whose durations are given, one for each timed call; the first call of each is not timed."""
    now, left = [0.0], {"dense": [100.0, *dense], "masked": [100.0, *masked]}

    def call(name):
        def run():
            now[0] += left[name].pop(0)
            return ()

        return run

    times = latency.compare(call("dense"), call("masked"), clock=lambda: now[0])
    assert left == {"dense": [], "masked": []}
    return times


def test_medians_and_a_mask_that_is_faster_every_time():
    times = compare([4.0, 9.0, *[2.0] * 7], [1.0] * 9)
    expected = {"dense": 2.0, "masked": 1.0, "speedup": 2.0, "least": 2.0, "most": 9.0, "pairs": 9, "faster": True}
    assert times == expected
    assert latency.sentence(times | {"dense": 0.002, "masked": 0.001}) == (
        "This mask makes this device faster: 1 ms a batch masked, 2 ms dense; within 9 pairs dense over masked is 2.00 "
        "(2.00 to 9.00)."
    )


@pytest.mark.parametrize("masked", [[1.0] * 9, [0.5] * 8 + [1.0], [2.0] * 9])
def test_a_pair_that_is_no_faster_is_enough_to_say_so(masked):
    times = compare([1.0] * 9, masked)
    assert not times["faster"]
    assert latency.sentence(times).startswith("This mask does not make this device faster: ")
