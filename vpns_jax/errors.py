"""The one exception a user is meant to see, and how its line is made."""

from typing import Any

# What fits on a few lines of a terminal, and in a mail's subject at a pinch.
MOST_CHARACTERS = 400


class UserError(Exception):
    """Something the caller can mend: one line that says what was found and what is allowed.

    `main.py` prints it without a traceback and exits with code 2.
    """


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
    text = " ".join(text.split("\n"))
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


def one_line(error: BaseException | str) -> str:
    """An error's text as it is printed: one line of at most `MOST_CHARACTERS`, without control characters.

    Args:
      error: an error, or its text. The last resort for texts that libraries made; ours are short by themselves.

    Returns:
      The text with white space run together, its end left out where it is long.
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."
