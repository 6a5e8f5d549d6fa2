"""The one exception a user is meant to see, and how its line is made."""

from collections.abc import Iterable
from typing import Any

# What fits on a few lines of a terminal, and in a mail's subject at a pinch.
LONGEST = 400


class UserError(Exception):
    """Something the caller can mend: one line that says what was found and what is allowed.

    `main.py` prints it without a traceback and exits with code 2.

    Attributes:
      details: where the line is about more than it can hold, all of it, a line each; `--verbose` prints them.
    """

    def __init__(self, message: str, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


def check_name(kind: str, name: str, known: tuple[str, ...] | list[str]) -> None:
    """Raises `UserError` listing the known names if `name` is not one of them."""
    if name not in known:
        listed = ", ".join(one or '""' for one in known)
        raise UserError(f"unknown {kind} {short(name)}; known: {listed}")


def short(value: Any, most: int = 80) -> str:
    """A value as an error shows it: its `repr`, with the middle left out where it is long.

    Args:
      value: anything, from a user's file too.
      most: how many characters to show, at least 8.

    Returns:
      One line of at most `most` characters.
    """
    try:
        text = repr(value)
    # Too deep, too large a number, or an object whose repr raises: what it is must do.
    except Exception:
        text = f"<{type(value).__name__}>"
    return shorten(text, most)


def one_line(error: BaseException | str) -> str:
    """An error's text as it is printed: one line of at most `LONGEST`, without control characters.

    Args:
      error: an error, or its text. The last resort for texts that libraries made; ours are short by themselves.

    Returns:
      The text with white space run together, its end left out where it is long.
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def shorten(text: str, limit: int) -> str:
    """The text on one line; one that is longer than `limit` characters has dots for its middle."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    tail = (limit - 3) // 2
    return f"{line[: limit - 3 - tail]}...{line[len(line) - tail :]}"


def several(items: Iterable[str], *, limit: int = 3, width: int = 50) -> str:
    """The first few of many, and how many more there are: "a, b, c and 57 more"; each no wider than `width`."""
    items = list(items)
    shown = ", ".join(shorten(item, width) for item in items[:limit])
    more = len(items) - limit
    return f"{shown} and {more} more" if more > 0 else shown
