"""The one exception a user is meant to see."""


class UserError(Exception):
    """Something the caller can mend: one line that says what was found and what is allowed.

    `main.py` prints it without a traceback and exits with code 2.
    """


def check_name(kind: str, name: str, known: tuple[str, ...] | list[str]) -> None:
    """Raises `UserError` listing the known names if `name` is not one of them."""
    if name not in known:
        raise UserError(f"unknown {kind} {name!r}; known: {', '.join(known)}")
