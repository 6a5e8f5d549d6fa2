"""Draws names in any script: finds installed fonts that have the letters, and escapes letters that no font has."""

import functools
import unicodedata
from pathlib import Path

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

DEFAULT = "DejaVu Sans"  # A part of matplotlib.


def legible(text: str) -> tuple[str, list[str]]:
    r"""Makes a text that can be drawn without missing glyphs.

    Args:
      text: a name in any script.

    Returns:
      The text, with escapes such as `\u72ac` for letters that no installed font has; and the font families to draw it
      with, in the order of preference.
    """
    missing = frozenset(text) - _letters(_path(DEFAULT))
    families, missing = _families(missing, _fonts()) if missing else ((), missing)
    return "".join(_escape(c) if c in missing else c for c in text), [DEFAULT, *families]


def _escape(character: str) -> str:
    # Characters that only join or vary their neighbors are dropped.
    if unicodedata.category(character) == "Cf" or "VARIATION SELECTOR" in unicodedata.name(character, ""):
        return ""
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _fonts() -> tuple[tuple[str, str], ...]:
    """The upright fonts that matplotlib knows now: family and file of each."""
    fonts = {font.name: font.fname for font in font_manager.fontManager.ttflist if font.style == "normal"}
    return tuple(sorted(fonts.items()))


@functools.lru_cache(maxsize=64)
def _families(wanted: frozenset[str], fonts: tuple[tuple[str, str], ...]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Font families that together have as many of the letters as possible; and the letters that no font has."""
    letters = {name: _letters(path) & wanted for name, path in fonts}
    chosen: list[str] = []
    while wanted and letters:
        best = max(letters, key=lambda name: len(letters[name] & wanted))
        if not letters[best] & wanted:
            break
        chosen.append(best)
        wanted -= letters[best]
    return tuple(chosen), wanted


@functools.cache
def _letters(path: str) -> frozenset[str]:
    """The letters that a font can draw; none if the font cannot be used."""
    # This font draws a box for every letter.
    if "LastResort" in Path(path).name:
        return frozenset()
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):
        return frozenset()
    # Color emoji are bitmaps of a fixed size, which matplotlib cannot draw.
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()


def _path(family: str) -> str:
    return str(font_manager.findfont(family))
