"""The one exception a user is meant to see, and how long lists fit into its one line."""

from collections.abc import Iterable

# An error is one line that a screen holds.
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
        raise UserError(f"unknown {kind} {name!r}; known: {', '.join(known)}")


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
