"""Draws the figures of a sweep: accuracy against sparsity, and against cost at each sparsity.

python -m experiments.figures --folder=runs/sweep
"""

import sys
from pathlib import Path

from experiments import summaries, tables
from vpns_jax import cli
from vpns_jax.analysis.cost import cost_figure
from vpns_jax.analysis.summary import rows
from vpns_jax.analysis.tradeoff import sparsity_figure


def main(argv: list[str]) -> int:
    """Runs the command.

    Args:
      argv: the command line, starting with the program's name.

    Returns:
      The exit code: 0, or 2 after an error that the user can fix.
    """

    def run() -> None:
        for path in draw(tables.named_folder(argv)):
            sys.stdout.write(f"{path}\n")

    return cli.end(run)


def draw(folder: Path) -> list[Path]:
    """Draws all figures of a summary into its folder.

    Args:
      folder: a folder with a summary.json.

    Returns:
      The paths of the figures.

    Raises:
      UserError: the summary is missing or damaged, or the disk refuses.
    """
    summary = summaries.read(folder / "summary.json")
    paths = [sparsity_figure(summary, folder / "sparsity.png")]
    for density in sorted({row.density for row in rows(summary) if row.density < 1}, reverse=True):
        name = f"cost-s{100 * (1 - density):.6g}.png"
        paths.append(cost_figure(summary, folder / name, density=density))
    return paths


if __name__ == "__main__":
    sys.exit(main(sys.argv))
