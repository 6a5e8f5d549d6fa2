"""What became of the cases of one family, counted."""

import dataclasses
import enum
import traceback
from collections.abc import Callable, Iterable

from vpns_jax.errors import LONGEST, UserError


class Outcome(enum.Enum):
    """What a case says of itself when it ends without an error."""

    RIGHT = "what was read is what was meant"
    SILENT = "something else was read, and no word was said"
    # Of numbers in a file without a checksum there is nothing to compare with.
    UNKNOWABLE = "other numbers were read from a format that has no checksum"


@dataclasses.dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
      name: what was done, for the list of failures.
      act: reads it, and compares what came of it.
      refusable: False if nothing is wrong with it, so that it must be read.
    """

    name: str
    act: Callable[[], Outcome]
    refusable: bool = True


@dataclasses.dataclass
class Tally:
    """Counts of one family of cases; `failures` holds a line for each that is not as promised."""

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
        """How many cases are not as promised."""
        return self.tracebacks + self.silent + self.wrongly_refused + self.long

    def add(self, case: Case) -> None:
        """Tries a case."""
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
    """Tries the cases of a family."""
    tally = Tally(family)
    for case in cases:
        tally.add(case)
    return tally


def table(tallies: Iterable[Tally]) -> str:
    """A Markdown table, a row for each family."""
    rows = [["Family", *COLUMNS], ["---", *("---:" for _ in COLUMNS)]]
    rows += [[tally.family, *(str(getattr(tally, field)) for field in COLUMNS.values())] for tally in tallies]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
