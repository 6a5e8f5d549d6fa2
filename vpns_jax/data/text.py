"""Names of files and folders as text that any screen, figure and file can take."""

import re
import unicodedata
from collections.abc import Sequence

# Control characters, halves of surrogate pairs (Python's stand-in for bytes that are not UTF-8), line separators.
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
# A backslash that would read as an escape of ours.
_LIKE_AN_ESCAPE = re.compile(r"\\(?=x[0-9a-f]{2})")
# The longest name that an error shows whole.
_LENGTH = 40


def printable(name: str) -> str:
    r"""The name with each byte that cannot be printed as `\xNN`; two names that differ stay different.

    Args:
      name: as the file system gives it: bytes that are not UTF-8 are surrogates (`os.fsdecode`).

    Returns:
      Valid Unicode on one line.
    """
    name = _LIKE_AN_ESCAPE.sub(r"\\x5c", name)
    return "".join(_escape(c) if unicodedata.category(c) in _UNPRINTABLE else c for c in name)


def some(names: Sequence[str], count: int = 3) -> str:
    """The first `count` names as the file system gives them, made printable and short, and how many more there are."""
    shown = [short(printable(name)) for name in names[:count]]
    more = [f"{len(names) - count} more"] if len(names) > count else []
    return ", ".join(shown + more)


def short(name: str) -> str:
    """The name; of a long one its ends."""
    half = _LENGTH // 2
    return name if len(name) <= _LENGTH else f"{name[: half - 1]}…{name[-half:]}"


def _escape(character: str) -> str:
    code = ord(character)
    # `os.fsdecode` keeps the byte in the low half of the surrogate.
    found = bytes([code - 0xDC00]) if 0xDC80 <= code <= 0xDCFF else character.encode("utf-8", "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in found)
