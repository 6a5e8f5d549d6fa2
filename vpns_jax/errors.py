"""The exception for all errors that a user can correct, and functions that shorten its text."""

from collections.abc import Iterable
from typing import Any

# The most characters of an error: a few lines of a terminal.
LONGEST = 400


class UserError(Exception):
    """An error that the user can correct: one line that says what was found, what is allowed and what to do.

    Every command prints it without a traceback and exits with code 2.

    Attributes:
      details: a complete list, one line each, where the error names only some items; `--verbose` prints it.
    """

    def __init__(self, message: str, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


def check_name(kind: str, name: str, known: tuple[str, ...] | list[str]) -> None:
    """Checks that a name is known.

    Args:
      kind: what the name stands for, such as "model".
      name: the name.
      known: the known names.

    Raises:
      UserError: the name is not known; the error lists the known names.
    """
    if name not in known:
        listed = ", ".join(known_name or '""' for known_name in known)
        raise UserError(f"unknown {kind} {short(name)}; known: {listed}")


def short(value: Any, most: int = 80) -> str:
    """A value for an error message: its `repr`; a long one is shortened in the middle.

    Args:
      value: any value, also from a user's file.
      most: the most characters to show, at least 8.

    Returns:
      One line of at most `most` characters.
    """
    try:
        text = repr(value)
    # The value is nested too deep, is too large a number, or has a repr that raises. Its type is shown instead.
    except Exception:
        text = f"<{type(value).__name__}>"
    return shorten(text, most)


def one_line(error: BaseException | str) -> str:
    """An error's text on one line of at most `LONGEST` characters, without control characters.

    Args:
      error: an error, or its text. It may come from a library; our own errors are short enough already.

    Returns:
      The text with white space joined; a long text is cut at its end.
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def first_line(error: BaseException) -> str:
    """The first line of a library's error, at most 150 characters; the error's type if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:150]


def shorten(text: str, limit: int) -> str:
    """The text on one line; if it is longer than `limit` characters, dots replace its middle."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    tail = (limit - 3) // 2
    return f"{line[: limit - 3 - tail]}...{line[len(line) - tail :]}"


def several(items: Iterable[str], *, limit: int = 3, width: int = 50) -> str:
    """The first of many items, and the number of the others: "a, b, c and 57 more".

    Args:
      items: the items.
      limit: how many items to show.
      width: the most characters of an item.

    Returns:
      One line.
    """
    items = list(items)
    shown = ", ".join(shorten(item, width) for item in items[:limit])
    more = len(items) - limit
    return f"{shown} and {more} more" if more > 0 else shown
