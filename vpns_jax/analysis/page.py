"""The parts of a self-contained HTML page: escaped text, tables, embedded pictures."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from vpns_jax.errors import UserError

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --soft: #666; --line: #ddd; --paper: #fff; --alarm: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --soft: #a5a5a5; --line: #3a3a3a; --paper: #161616; --alarm: #ff8a80; }
}
body { margin: 0 auto; max-width: 62rem; padding: 1rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; }
.note { color: var(--soft); font-size: 0.9rem; } .alarm { color: var(--alarm); }
.wide, pre { overflow-x: auto; } pre { padding: 0.6rem; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; margin: 0.5rem 0; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid var(--line); text-align: right; }
th { vertical-align: bottom; overflow-wrap: normal; } td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5rem 0; } figcaption { color: var(--soft); font-size: 0.9rem; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
details { border-top: 1px solid var(--line); padding: 0.4rem 0; } summary { cursor: pointer; }
"""


def document(title: str, parts: Iterable[str]) -> str:
    """A complete document that loads no other files; `title` is text, `parts` are HTML."""
    head = (
        '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>"
    )
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def element(tag: str, text: str, css: str = "") -> str:
    """An element with escaped text.

    Args:
      tag: the element's name.
      text: its text.
      css: its class; "" for none.

    Returns:
      HTML.
    """
    attribute = f' class="{css}"' if css else ""
    return f"<{tag}{attribute}>{escape(text)}</{tag}>"


def table(headings: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table of text, which scrolls sideways on a narrow screen. Empty headings are left out."""
    top = f"<thead>{_line('th', headings)}</thead>" if any(headings) else ""
    lines = "".join(_line("td", line) for line in body)
    return f'<div class="wide"><table>{top}<tbody>{lines}</tbody></table></div>'


def bullets(items: Iterable[str], css: str = "") -> str:
    """A list of texts."""
    return f"<ul>{''.join(element('li', item, css) for item in items)}</ul>"


def fold(title: str, parts: Iterable[str]) -> str:
    """A part that opens on a click; `title` is text, `parts` are HTML."""
    return f"<details>{element('summary', title)}{''.join(parts)}</details>"


def picture(title: str, caption: str, path: Path) -> str:
    """A PNG file, embedded in the page.

    Args:
      title: the picture's title.
      caption: the text below it.
      path: the PNG file.

    Returns:
      HTML.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        data = base64.b64encode(Path(path).read_bytes()).decode("ascii")
    except OSError as error:
        raise UserError(f"figure {str(path)!r} cannot be read: {error.strerror}") from error
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(title)}">'
    return f"<figure>{element('h3', title)}{image}{element('figcaption', caption)}</figure>"


def _line(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(element(tag, cell) for cell in cells)}</tr>"
