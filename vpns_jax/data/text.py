"""Turns names of files and folders into text that can be printed, drawn and written."""

import re
import unicodedata
from collections.abc import Sequence

from vpns_jax.errors import several, shorten

# Control characters, surrogates (in Python they stand for bytes that are not UTF-8), and line separators.
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
# A backslash that looks like one of our escapes.
_LIKE_AN_ESCAPE = re.compile(r"\\(?=x[0-9a-f]{2})")
# The length of the longest name that an error does not shorten.
_LENGTH = 40


def printable(name: str) -> str:
    r"""Replaces bytes that cannot be printed by `\xNN`. Different names stay different.

    Args:
      name: a name from the file system, in which surrogates stand for bytes that are not UTF-8 (`os.fsdecode`).

    Returns:
      Valid Unicode on one line.
    """
    name = _LIKE_AN_ESCAPE.sub(r"\\x5c", name)
    return "".join(_escape(c) if unicodedata.category(c) in _UNPRINTABLE else c for c in name)


def composed(name: str) -> str:
    """The name with each letter and its accents as one character (Unicode's NFC).

    Archives from macOS store `é` as `e` and an accent. Both look the same and are the same name.

    Args:
      name: a name from the file system.

    Returns:
      The composed name.
    """
    return unicodedata.normalize("NFC", name)


def some(names: Sequence[str], count: int = 3) -> str:
    """The first `count` names, made printable and short, and the number of the others."""
    return several(map(printable, names), limit=count, width=_LENGTH)


def brief(name: str) -> str:
    """The printable name; of a long name, the beginning and the end."""
    return shorten(name, _LENGTH)


def _escape(character: str) -> str:
    code = ord(character)
    # `os.fsdecode` keeps the byte in the low half of the surrogate.
    encoded = bytes([code - 0xDC00]) if 0xDC80 <= code <= 0xDCFF else character.encode("utf-8", "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in encoded)
