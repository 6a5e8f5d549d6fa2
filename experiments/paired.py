"""One table of results, each beside the one it is measured against: accuracy, and the difference seed by seed."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import tables
from vpns_jax.analysis import comparison
from vpns_jax.analysis.summary import rows
from vpns_jax.analysis.tables import sparsity_name
from vpns_jax.files import write_whole


def paired_table(cells: list[Mapping[str, Any]], references: Mapping[str, str], over: str) -> tables.Table:
    """A line a method and sparsity: mean and sample standard deviation over seeds, in per cent, and the difference.

    Args:
      cells: as in summary.json.
      references: by method, the one that it is compared with, wherever both have seeds in common.
      over: what to call the references in the heading.
    """
    summary = {"cells": cells}
    differences = {
        (one.method, one.density): one
        for reference in dict.fromkeys(references.values())
        for one in comparison.differences(summary, reference)
        if references.get(one.method) == reference
    }
    lines: list[tuple[str, ...]] = []
    for row in rows(summary):
        one = differences.get((row.method, row.density))
        lines.append(
            (
                row.method,
                sparsity_name(row.density),
                str(len(row.cells)),
                tables.estimate(row),
                *(("", "", "") if one is None else tables.difference(one)),
            )
        )
    return ("method", "sparsity", "seeds", "test accuracy %", f"points over {over}", "95% interval", "verdict"), lines


def write(table: tables.Table, folder: Path, name: str) -> None:
    """Writes FOLDER/NAME.md and .csv, and prints the table."""
    write_whole(folder / f"{name}.md", tables.markdown(table))
    write_whole(folder / f"{name}.csv", tables.comma_separated(table))
    sys.stdout.write(f"\n{tables.markdown(table)}\ntable: {folder / f'{name}.md'}\n")
