"""A few cases of each family of bad input; `make faults` tries hundreds."""

import pytest

from tests.faults.families import tallies
from tests.faults.tally import Case, Outcome, count
from vpns_jax.errors import UserError

pytestmark = pytest.mark.slow


def test_each_family_is_refused_or_read_right(tmp_path):
    counted = list(tallies(tmp_path, inputs=5, damages=5))
    assert [tally.tried for tally in counted] == [5, 5, 5, 5, 5]
    assert [(tally.broken, tally.failures) for tally in counted] == [(0, [])] * 5


def test_what_is_not_as_promised_is_counted():
    def fail(error):
        raise error

    tally = count(
        "any",
        [
            Case("silent", lambda: Outcome.SILENT),
            Case("crash", lambda: fail(KeyError("x"))),
            Case("two lines", lambda: fail(UserError("a\nb"))),
            Case("long", lambda: fail(UserError("x" * 401))),
            Case("good", lambda: fail(UserError("no")), refusable=False),
            Case("bad", lambda: fail(UserError("no"))),
            Case("right", lambda: Outcome.RIGHT),
        ],
    )
    assert (tally.silent, tally.tracebacks, tally.long, tally.wrongly_refused) == (1, 1, 2, 1)
    assert (tally.refused, tally.right, tally.tried, tally.broken, len(tally.failures)) == (1, 1, 7, 5, 5)
