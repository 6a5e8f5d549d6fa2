"""Configs with one key that is missing, misspelled or impossible; none may be accepted."""

import functools
import itertools
from collections.abc import Iterator

from tests.faults.tally import Case, Outcome
from tests.test_bad_configs import bad_trees
from vpns_jax.errors import short
from vpns_jax.experiment import config


def cases(number: int) -> Iterator[Case]:
    for done, tree in itertools.islice(bad_trees(), number):
        yield Case(short(done), functools.partial(_parse, tree))


def _parse(tree) -> Outcome:
    config.parse(tree)
    return Outcome.SILENT
