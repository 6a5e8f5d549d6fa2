"""Writes the tables of a sweep, as Markdown, CSV and LaTeX: accuracy, and differences from one method, seed by seed.

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

FOLDER = flags.DEFINE_string("folder", None, "The folder of a sweep or a run, with a summary.json.")
_REFERENCE = flags.DEFINE_string("reference", "hydra", "The method that the others are compared with.")

# A heading and lines of cells.
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def main(argv: list[str]) -> int:
    """Runs the command.

    Args:
      argv: the command line, starting with the program's name.

    Returns:
      The exit code: 0, or 2 after an error that the user can fix.
    """

    def run() -> None:
        folder = named_folder(argv)
        summary = summaries.read(folder / "summary.json")
        write_tables(summary, folder, reference=_REFERENCE.value)

    return cli.end(run)


def named_folder(argv: list[str]) -> Path:
    """Reads the folder from a command line; without --folder it is the current one.

    Args:
      argv: the command line, starting with the program's name.

    Returns:
      The folder.

    Raises:
      UserError: a flag is unknown, or its value is not a path.
    """
    rest = cli.parse_flags(argv)
    if rest:
        raise UserError(f"unexpected arguments {short(rest)}; name a folder by --folder=FOLDER")
    return Path() if FOLDER.value is None else user_path(FOLDER.value, "--folder")


def write_tables(summary: Mapping[str, Any], folder: Path, *, reference: str) -> None:
    """Writes accuracy.{md,csv,tex} and differences.{md,csv,tex}, and prints them.

    Args:
      summary: the summary.
      folder: the folder for the files.
      reference: the method that the others are compared with.

    Raises:
      UserError: the summary does not have that method, or the disk refuses.
    """
    check_name("reference method", reference, methods(summary))
    tables = {"accuracy": accuracy_table(summary), "differences": difference_table(summary, reference)}
    for name, table in tables.items():
        write_whole(folder / f"{name}.md", markdown(table))
        write_whole(folder / f"{name}.csv", comma_separated(table))
        write_whole(folder / f"{name}.tex", latex(table))
        sys.stdout.write(f"{markdown(table)}\n")


def accuracy_table(summary: Mapping[str, Any]) -> Table:
    """Makes a table of accuracies, mean and sample standard deviation over seeds, in percent: a line for each method.

    Args:
      summary: the summary.

    Returns:
      The table.
    """
    table = rows(summary)
    densities = sorted({row.density for row in table}, reverse=True)
    estimates = {(row.method, row.density): estimate(row) for row in table}
    lines = [(method, *(estimates.get((method, density), "") for density in densities)) for method in methods(summary)]
    return ("method", *(sparsity_name(density) for density in densities)), lines


def difference_table(summary: Mapping[str, Any], reference: str) -> Table:
    """Makes a table of differences: a line per method and sparsity.

    Args:
      summary: the summary.
      reference: the method that the others are compared with.

    Returns:
      The table.
    """
    lines: list[tuple[str, ...]] = [
        (
            result.method,
            sparsity_name(result.density),
            str(result.seeds),
            *difference(result),
        )
        for result in comparison.differences(summary, reference)
    ]
    return ("method", "sparsity", "seeds", f"points over {reference}", "95% interval", "verdict"), lines


def difference(result: comparison.Difference) -> tuple[str, str, str]:
    """Formats a difference.

    Args:
      result: the difference of a method from the reference.

    Returns:
      The mean in points, the 95% interval, and the verdict.
    """
    interval = (
        "" if result.low is None or result.high is None else f"{100 * result.low:+.2f} to {100 * result.high:+.2f}"
    )
    return f"{100 * result.mean:+.2f}", interval, result.verdict


def estimate(row: Row) -> str:
    """Formats a row's accuracy.

    Args:
      row: the row.

    Returns:
      Mean and sample standard deviation over seeds, in percent.
    """
    accuracy = row.headline("test", "best")
    mean = f"{100 * (accuracy.mean or 0.0):.1f}"
    return mean if accuracy.std is None else f"{mean} ± {100 * accuracy.std:.1f}"


def markdown(table: Table) -> str:
    """Formats a table as Markdown.

    Args:
      table: the table.

    Returns:
      The text.
    """
    head, lines = table
    body = [head, (":--", *["--:"] * (len(head) - 1)), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in body)


def comma_separated(table: Table) -> str:
    """Formats a table as CSV.

    Args:
      table: the table.

    Returns:
      The text.
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([table[0], *table[1]])
    return out.getvalue()


def latex(table: Table) -> str:
    """Formats a table as LaTeX, for the booktabs package.

    Args:
      table: the table.

    Returns:
      The text.
    """
    head, lines = table
    body = [_latex_line(head), r"\midrule", *(_latex_line(line) for line in lines)]
    columns = "l" + "r" * (len(head) - 1)
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}", ""])


def _latex_line(cells: Sequence[str]) -> str:
    escaped = [cell.replace("%", r"\%").replace("_", r"\_").replace("±", r"$\pm$") for cell in cells]
    return " & ".join(escaped) + r" \\"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
