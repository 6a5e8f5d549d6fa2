"""Counts the outcomes of the cases of one family."""

import dataclasses
import enum
import traceback
from collections.abc import Callable, Iterable

from vpns_jax.errors import LONGEST, UserError


class Outcome(enum.Enum):
    """The outcome of a case that ends without an error."""

    RIGHT = "what was read is what was meant"
    SILENT = "something else was read, and no word was said"
    # A changed number in a file without a checksum cannot be detected.
    UNKNOWABLE = "other numbers were read from a format that has no checksum"


@dataclasses.dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
      name: the change that was made, for the list of failures.
      act: reads the input and compares the result with what is expected.
      refusable: False if the input is good, so that it must be accepted.
    """

    name: str
    act: Callable[[], Outcome]
    refusable: bool = True


@dataclasses.dataclass
class Tally:
    """The counts of one family of cases; `failures` holds a line for each case that is not as promised."""

    family: str
    tried: int = 0
    refused: int = 0
    right: int = 0
    unknowable: int = 0
    tracebacks: int = 0
    silent: int = 0
    wrongly_refused: int = 0
    long: int = 0
    longest: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)

    @property
    def broken(self) -> int:
        """The number of cases that are not as promised."""
        return self.tracebacks + self.silent + self.wrongly_refused + self.long

    def add(self, case: Case) -> None:
        """Runs a case and counts its outcome."""
        self.tried += 1
        try:
            outcome = case.act()
        except UserError as error:
            self._refuse(case, str(error))
        except Exception as error:
            self.tracebacks += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.failures.append(f"traceback: {case.name}: {error!r:.200} at {where.filename}:{where.lineno}")
        else:
            self.right += outcome is Outcome.RIGHT
            self.unknowable += outcome is Outcome.UNKNOWABLE
            self.silent += outcome is Outcome.SILENT
            if outcome is Outcome.SILENT:
                self.failures.append(f"silent: {case.name}")

    def _refuse(self, case: Case, text: str) -> None:
        self.longest = max(self.longest, len(text))
        if len(text) > LONGEST or len(text.splitlines()) != 1:
            self.long += 1
            self.failures.append(f"long: {case.name}: {text[:500]!r}")
        elif not case.refusable:
            self.wrongly_refused += 1
            self.failures.append(f"refused: {case.name}: {text}")
        else:
            self.refused += 1


COLUMNS = {
    "Tried": "tried",
    "Refused in one line": "refused",
    "Accepted, right": "right",
    "Other numbers, no checksum in the format": "unknowable",
    "Tracebacks": "tracebacks",
    "Silent": "silent",
    "Refused, though good": "wrongly_refused",
    "Too long": "long",
    "Longest line": "longest",
}


def count(family: str, cases: Iterable[Case]) -> Tally:
    """Runs the cases of a family."""
    tally = Tally(family)
    for case in cases:
        tally.add(case)
    return tally


def table(tallies: Iterable[Tally]) -> str:
    """Makes a Markdown table with a row for each family."""
    rows = [["Family", *COLUMNS], ["---", *("---:" for _ in COLUMNS)]]
    rows += [[tally.family, *(str(getattr(tally, field)) for field in COLUMNS.values())] for tally in tallies]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
