"""How far the masks of a finished run or sweep agree: between methods, and between seeds of one method.

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
    """Returns the exit code."""

    def run() -> None:
        folder = cli.folder(argv)
        found = compare(folder)
        table = (tuple(heading.replace("\n", " ") for heading in HEADINGS), [_line(one) for one in found])
        write_whole(folder / "overlap.md", tables.markdown(table))
        write_whole(folder / "overlap.csv", tables.comma_separated(table))
        sys.stdout.write(f"{aligned(HEADINGS, table[1])}\n{overlap_figure(found, folder / 'overlap.png')}\n")

    return cli.end(run)


def compare(folder: Path) -> list[Comparison]:
    """All that the masks in a folder allow to be compared.

    Raises:
      UserError: it holds no summary, a mask is missing or not the one that the summary tells of, or there are no two.
    """
    cells = summaries.read(folder / "summary.json")["cells"]
    found = comparisons(_mask(folder, cell) for cell in cells if cell["density"] < 1)
    if not found:
        raise UserError(f"{folder} holds no two masks of the same density to compare")
    return found


def _mask(folder: Path, cell: Mapping[str, Any]) -> Mask:
    """The exported mask of a run's cell, or of one in a sweep, checked against its result."""
    from vpns_jax.deploy import subnetworks

    name = cell["cell"]
    homes = (folder, folder / "runs" / name)
    paths = [home / "subnetworks" / f"{name}.safetensors" for home in homes]
    path = next((path for path in paths if path.exists()), paths[0])
    layers = {layer["path"]: layer for layer in cell.get("layers") or ()}
    # What ends a channel is masked, and not counted.
    bits = {layer: one for layer, one in subnetworks.load_bits(path).items() if layer in layers}
    kept = {layer: int(np.bitwise_count(one).sum(dtype=np.int64)) for layer, one in bits.items()}
    if kept != {layer: one["kept"] for layer, one in layers.items()}:
        raise UserError(f"{path}: its mask is not the one that {folder / 'summary.json'} tells of")
    sizes = {layer: one["size"] for layer, one in layers.items()}
    return Mask(cell["method"], cell["density"], cell["seed"], bits, sizes)


def _line(one: Comparison) -> tuple[str, ...]:
    mine, theirs = one.methods
    what = f"{mine}, between seeds" if mine == theirs else f"{mine} and {theirs}"
    values = (one.overlap.jaccard, one.overlap.chance, one.overlap.chance_by_layer)
    return what, sparsity_name(one.density), str(one.pairs), *(percent(value) for value in values)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
