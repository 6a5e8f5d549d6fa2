"""The file and the page that results are written to."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import measure
from vpns_jax import files

RESULTS, PAGE = "results.json", "page.md"
# Keys of a part: how it ended, why, its seconds, its rows by table, and the end of its log if it failed.
Told = dict[str, Any]


def write(directory: Path, head: Mapping[str, Any], parts: Sequence[Told]) -> None:
    """Writes the results and the page anew, each whole or not at all.

    Args:
      directory: where to.
      head: facts about this run.
      parts: what the parts told so far.
    """
    results = {"benchmark": "accelerator", **head, "parts": parts}
    files.write_whole(directory / RESULTS, json.dumps(results, indent=1) + "\n")
    files.write_whole(directory / PAGE, "\n".join(_lines(head, parts)) + "\n")


def _lines(head: Mapping[str, Any], parts: Sequence[Told]) -> Iterator[str]:
    yield "# Measured on an accelerator"
    for key, value in head.items():
        yield f"- {key}: {value}"
    yield ""
    yield measure.table([{key: part[key] for key in ("part", "state", "seconds", "reason")} for part in parts])
    for part in parts:
        if part["state"] == "waiting":
            continue
        yield f"\n## {part['title']}\n"
        if part["reason"]:
            yield f"**{part['state']}**: {part['reason']}\n"
        for caption, rows in part["tables"].items():
            yield f"{caption}:\n"
            yield _table([row for row in rows if isinstance(row, dict)])
            yield from (f"- {row}" for row in rows if isinstance(row, str))
            yield ""
        if part["log"]:
            yield "```\n" + part["log"].rstrip().replace("```", "'''") + "\n```"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = dict.fromkeys(column for row in rows for column in row)
    return measure.table([{column: row.get(column) for column in columns} for row in rows]) + "\n" if rows else ""
