"""The figures of a sweep: accuracy against sparsity, and against what it cost at each sparsity.

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
    """Returns the exit code."""

    def run() -> None:
        for path in draw(tables.named_folder(argv)):
            sys.stdout.write(f"{path}\n")

    return cli.end(run)


def draw(folder: Path) -> list[Path]:
    """Draws all figures of the summary in `folder` there; returns their paths."""
    summary = summaries.read(folder / "summary.json")
    paths = [sparsity_figure(summary, folder / "sparsity.png")]
    for density in sorted({row.density for row in rows(summary) if row.density < 1}, reverse=True):
        name = f"cost-s{100 * (1 - density):.6g}.png"
        paths.append(cost_figure(summary, folder / name, density=density))
    return paths


if __name__ == "__main__":
    sys.exit(main(sys.argv))
