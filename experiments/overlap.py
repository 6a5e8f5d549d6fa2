"""Compares the masks of a finished run or sweep: between methods, and between seeds of one method.

python -m experiments.overlap --workdir=runs/quickstart
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments import summaries, tables
from vpns_jax import cli
from vpns_jax.analysis.heatmap import overlap_figure
from vpns_jax.analysis.overlap import Comparison, Mask, comparisons
from vpns_jax.analysis.tables import aligned, percent, sparsity_name
from vpns_jax.errors import UserError
from vpns_jax.files import write_whole

HEADINGS = ("masks", "sparsity", "pairs", "overlap\n%", "by chance\n%", "by chance\nin each layer %")


def main(argv: list[str]) -> int:
    """Runs the command.

    Args:
      argv: the command line, starting with the program's name.

    Returns:
      The exit code: 0, or 2 after an error that the user can fix.
    """

    def run() -> None:
        folder = cli.folder(argv)
        results = compare(folder)
        table = (
            tuple(heading.replace("\n", " ") for heading in HEADINGS),
            [_line(comparison) for comparison in results],
        )
        write_whole(folder / "overlap.md", tables.markdown(table))
        write_whole(folder / "overlap.csv", tables.comma_separated(table))
        sys.stdout.write(f"{aligned(HEADINGS, table[1])}\n{overlap_figure(results, folder / 'overlap.png')}\n")

    return cli.end(run)


def compare(folder: Path) -> list[Comparison]:
    """Compares all masks of a run or sweep that can be compared.

    Args:
      folder: the folder of the run or sweep.

    Returns:
      The comparisons.

    Raises:
      UserError: there is no summary, a mask is missing or does not agree with the summary, masks keep nothing or are of
        different networks, or no two masks have the same density.
    """
    cells = summaries.read(folder / "summary.json")["cells"]
    masks = [_mask(folder, cell) for cell in cells if cell["density"] < 1]
    try:
        results = comparisons(masks)
    except ValueError as error:
        raise UserError(f"{folder / 'summary.json'}: {error}") from error
    if not results:
        raise UserError(f"{folder} holds no two masks of the same density to compare")
    return results


def _mask(folder: Path, cell: Mapping[str, Any]) -> Mask:
    """The exported mask of a cell of a run or a sweep, checked against the cell's result."""
    from vpns_jax.deploy import subnetworks

    name = cell["cell"]
    homes = (folder, folder / "runs" / name)
    paths = [home / "subnetworks" / f"{name}.safetensors" for home in homes]
    path = next((path for path in paths if path.exists()), paths[0])
    layers = {layer["path"]: layer for layer in cell.get("layers") or ()}
    if not layers:
        raise UserError(f"{folder / 'summary.json'} names no layers of {cell['cell']}, so its mask cannot be compared")
    # A mask may also name the vectors that end a channel; they are not counted.
    bits = {layer: packed for layer, packed in subnetworks.load_bits(path).items() if layer in layers}
    kept = {path: int(np.bitwise_count(packed).sum(dtype=np.int64)) for path, packed in bits.items()}
    if kept != {path: layer["kept"] for path, layer in layers.items()}:
        raise UserError(f"{path}: its mask is not the one of {folder / 'summary.json'}")
    sizes = {path: layer["size"] for path, layer in layers.items()}
    return Mask(cell["method"], cell["density"], cell["seed"], bits, sizes)


def _line(comparison: Comparison) -> tuple[str, ...]:
    mine, theirs = comparison.methods
    what = f"{mine}, between seeds" if mine == theirs else f"{mine} and {theirs}"
    values = (comparison.overlap.jaccard, comparison.overlap.chance, comparison.overlap.chance_by_layer)
    return what, sparsity_name(comparison.density), str(comparison.pairs), *(percent(value) for value in values)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
