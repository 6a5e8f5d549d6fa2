"""What can be done with a run's best network, as command lines."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vpns_jax import data
from vpns_jax.analysis.comparison import headline
from vpns_jax.analysis.summary import DENSE
from vpns_jax.experiment.workdir import Workdir

_PROGRAM = ("python", "-m", "vpns_jax")


def best(cells: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Picks the cell to use: of the sparse ones that with the best validation accuracy, of equals the sparsest.

    The test split is not asked: then its accuracy would no longer be that of unseen images.

    Args:
      cells: entries of the summary.

    Returns:
      One of them; the dense network if there is no other, and None if there is none.
    """
    sparse = [cell for cell in cells if cell["method"] != DENSE]
    return max(sparse or cells, key=lambda cell: (headline(cell, split="val"), -cell["density"]), default=None)


def commands(
    cells: Sequence[dict[str, Any]], folder: Workdir, *, own: str = "", shrinks: bool = True
) -> list[tuple[str, str]]:
    """Lists what can be done with the best network.

    Args:
      cells: entries of the summary.
      folder: the run's folder.
      own: the function that makes the network, if it is one of the user's own.
      shrinks: whether the network can be made smaller.

    Returns:
      For each, what it does and the command.
    """
    chosen = best(cells)
    if chosen is None:
        return []
    network = _shown(folder.subnetwork(chosen["cell"]).with_suffix(""))
    small = f"{network}-small" if shrinks else network
    # No file may choose code to run, so the command does.
    function = (f"--model={own}",) if own else ()
    lines = [
        (
            f"Classify images with {chosen['cell']}, the best on validation:",
            _line("predict", network, "IMAGES_OR_FOLDER", *function),
        )
    ]
    if shrinks:
        what = "Make it smaller, by cutting out what is pruned as a whole channel:"
        lines.append((what, _line("shrink", network, f"--out={small}", *function)))
    if own:
        what, format = "Write it as a program that JAX runs without your code:", "stablehlo"
    else:
        what, format = "Write it as a file for ONNX Runtime:", "onnx"
    return [*lines, (what, _line("export", small, f"--format={format}", f"--out={small}.{format}", *function))]


def _line(*words: str) -> str:
    return data.printable(shlex.join((*_PROGRAM, *words)))


def _shown(path: Path) -> str:
    """The path as it is short from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
