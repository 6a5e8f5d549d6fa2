"""What a part yields: rows of tables."""

import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A row of a table, or a remark on it.

    Attributes:
      table: the table's caption.
      values: the row's values by column, or the remark.
    """

    table: str
    values: Mapping[str, Any] | str


def tried(table: str, first: Mapping[str, Any], measured: Callable[[], Mapping[str, Any]]) -> Row:
    """A row that names the reason if it cannot be measured, so that the others still are.

    Args:
      table: the table's caption.
      first: the columns that say what the row is about.
      measured: measures the other columns.

    Returns:
      The row.
    """
    return Row(table, {**first, **attempt(measured)})


def attempt(measured: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The columns that a function measures; if it cannot, the reason."""
    try:
        return measured()
    except Exception as error:  # The reason is what the row then tells.
        traceback.print_exc()
        return {"not measured": reason(error)}


class Compared:
    """The columns of a table that compare a row with its first one; they are left out if that was not measured."""

    def __init__(self, first: str) -> None:
        """Begins a table.

        Args:
          first: the name of the row that the others are compared with.
        """
        self._first, self._seconds = first, dict[str, float]()

    def columns(self, name: str, seconds: float, columns: Callable[[float], dict[str, float]]) -> dict[str, float]:
        """Makes the columns of a row.

        Args:
          name: the row.
          seconds: its time.
          columns: makes them from the first row's time.

        Returns:
          The columns, or none.
        """
        self._seconds[name] = seconds
        return columns(self._seconds[self._first]) if self._first in self._seconds else {}


def reason(error: BaseException) -> str:
    """One line that says why something failed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:200]}".replace("|", "/")
