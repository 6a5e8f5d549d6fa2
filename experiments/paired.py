"""A table that compares each result with a reference: accuracy, and the difference seed by seed."""

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
    """Makes a table with a line for each method and sparsity.

    A line has the mean and sample standard deviation over seeds, in percent, and the difference from the reference.

    Args:
      cells: the cells of a summary.json.
      references: the method that each method is compared with, for seeds that both have.
      over: the name of the references in the heading.

    Returns:
      The table.
    """
    summary = {"cells": cells}
    differences = {
        (difference.method, difference.density): difference
        for reference in dict.fromkeys(references.values())
        for difference in comparison.differences(summary, reference)
        if references.get(difference.method) == reference
    }
    lines: list[tuple[str, ...]] = []
    for row in rows(summary):
        difference = differences.get((row.method, row.density))
        lines.append(
            (
                row.method,
                sparsity_name(row.density),
                str(len(row.cells)),
                tables.estimate(row),
                *(("", "", "") if difference is None else tables.difference(difference)),
            )
        )
    return ("method", "sparsity", "seeds", "test accuracy %", f"points over {over}", "95% interval", "verdict"), lines


def write(table: tables.Table, folder: Path, name: str) -> None:
    """Writes FOLDER/NAME.md and .csv, and prints the table.

    Args:
      table: the table.
      folder: the folder.
      name: the name of the files.

    Raises:
      UserError: the disk cannot be written.
    """
    write_whole(folder / f"{name}.md", tables.markdown(table))
    write_whole(folder / f"{name}.csv", tables.comma_separated(table))
    sys.stdout.write(f"\n{tables.markdown(table)}\ntable: {folder / f'{name}.md'}\n")
