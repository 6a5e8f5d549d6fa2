"""A few of the faults that `make faults` tries by the hundred."""

from tests import faults


def test_no_fault_is_silent_or_a_traceback():
    found = list(faults.tallies(8, 2))
    assert [tally.faults for tally in found] == [[], [], [], []]
    assert sum(tally.refused for tally in found) > 8
