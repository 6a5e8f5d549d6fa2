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


def reason(error: BaseException) -> str:
    """One line that says why something failed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:200]}".replace("|", "/")
