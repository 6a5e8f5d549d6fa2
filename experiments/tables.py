"""The tables of a sweep, as Markdown, CSV and LaTeX: accuracy, and differences from one method, seed by seed.

python -m experiments.tables --folder=runs/sweep --reference=hydra
"""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments import summaries
from vpns_jax import cli
from vpns_jax.analysis import comparison
from vpns_jax.analysis.summary import Row, methods, rows
from vpns_jax.analysis.tables import sparsity_name
from vpns_jax.errors import UserError, check_name, short
from vpns_jax.files import user_path, write_whole

FOLDER = flags.DEFINE_string("folder", None, "A folder with a summary.json, of a sweep or of a run.")
_REFERENCE = flags.DEFINE_string("reference", "hydra", "The method that the others are compared with.")

# A heading and lines of cells.
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def main(argv: list[str]) -> int:
    """Returns the exit code."""

    def run() -> None:
        folder = named_folder(argv)
        summary = summaries.read(folder / "summary.json")
        write_tables(summary, folder, reference=_REFERENCE.value)

    return cli.end(run)


def named_folder(argv: list[str]) -> Path:
    """The folder that a command line names by --folder, or this one.

    Args:
      argv: the command line, the program's name first.

    Raises:
      UserError: a flag that there is not, or no path.
    """
    rest = cli.parse_flags(argv)
    if rest:
        raise UserError(f"unexpected arguments {short(rest)}; name a folder by --folder=FOLDER")
    return Path() if FOLDER.value is None else user_path(FOLDER.value, "--folder")


def write_tables(summary: Mapping[str, Any], folder: Path, *, reference: str) -> None:
    """Writes accuracy.{md,csv,tex} and differences.{md,csv,tex} into `folder`, and prints them."""
    check_name("reference method", reference, methods(summary))
    tables = {"accuracy": accuracy_table(summary), "differences": difference_table(summary, reference)}
    for name, table in tables.items():
        write_whole(folder / f"{name}.md", markdown(table))
        write_whole(folder / f"{name}.csv", comma_separated(table))
        write_whole(folder / f"{name}.tex", latex(table))
        sys.stdout.write(f"{markdown(table)}\n")


def accuracy_table(summary: Mapping[str, Any]) -> Table:
    """A line a method, a column a sparsity: mean and sample standard deviation over seeds, in per cent."""
    table = rows(summary)
    densities = sorted({row.density for row in table}, reverse=True)
    found = {(row.method, row.density): estimate(row) for row in table}
    lines = [(method, *(found.get((method, density), "") for density in densities)) for method in methods(summary)]
    return ("method", *(sparsity_name(density) for density in densities)), lines


def difference_table(summary: Mapping[str, Any], reference: str) -> Table:
    """A line a method and sparsity: mean difference in points, its 95% interval, and what that says."""
    lines: list[tuple[str, ...]] = [
        (
            one.method,
            sparsity_name(one.density),
            str(one.seeds),
            *difference(one),
        )
        for one in comparison.differences(summary, reference)
    ]
    return ("method", "sparsity", "seeds", f"points over {reference}", "95% interval", "verdict"), lines


def difference(one: comparison.Difference) -> tuple[str, str, str]:
    """Its mean in points, its 95% interval, and what that says."""
    interval = "" if one.low is None or one.high is None else f"{100 * one.low:+.2f} to {100 * one.high:+.2f}"
    return f"{100 * one.mean:+.2f}", interval, one.verdict


def estimate(row: Row) -> str:
    """A row's accuracy: mean and sample standard deviation over seeds, in per cent."""
    found = comparison.accuracy(row)
    mean = f"{100 * (found.mean or 0.0):.1f}"
    return mean if found.std is None else f"{mean} ± {100 * found.std:.1f}"


def markdown(table: Table) -> str:
    head, lines = table
    body = [head, (":--", *["--:"] * (len(head) - 1)), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in body)


def comma_separated(table: Table) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([table[0], *table[1]])
    return out.getvalue()


def latex(table: Table) -> str:
    """A tabular in the style of the booktabs package."""
    head, lines = table
    body = [_latex_line(head), r"\midrule", *(_latex_line(line) for line in lines)]
    columns = "l" + "r" * (len(head) - 1)
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}", ""])


def _latex_line(cells: Sequence[str]) -> str:
    escaped = [cell.replace("%", r"\%").replace("_", r"\_").replace("±", r"$\pm$") for cell in cells]
    return " & ".join(escaped) + r" \\"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
