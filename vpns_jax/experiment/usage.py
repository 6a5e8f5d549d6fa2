"""What can be done with a run's best network, as command lines."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vpns_jax import data, models
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


def commands(cells: Sequence[dict[str, Any]], folder: Workdir, model: str = "") -> list[tuple[str, str]]:
    """Lists what can be done with the best network.

    Args:
      cells: entries of the summary.
      folder: the run's folder.
      model: the name of the network.

    Returns:
      For each, what it does and the command.
    """
    chosen = best(cells)
    if chosen is None:
        return []
    network = _shown(folder.subnetwork(chosen["cell"]).with_suffix(""))
    small = f"{network}-small"
    name = f"{chosen['cell']}, the best on validation"
    if models.is_own(model):
        # Its code must be named, because no file may choose code to run.
        function, program = f"--model={model}", f"{network}.stablehlo"
        return [
            (f"Classify images with {name}:", _line("predict", network, "IMAGES_OR_FOLDER", function)),
            (
                "Write it as a program that JAX runs without your code:",
                _line("export", network, "--format=stablehlo", f"--out={program}", function),
            ),
        ]
    return [
        (f"Classify images with {name}:", _line("predict", network, "IMAGES_OR_FOLDER")),
        (
            "Make it smaller, by cutting out what is pruned as a whole channel:",
            _line("shrink", network, f"--out={small}"),
        ),
        ("Write it as a file for ONNX Runtime:", _line("export", small, "--format=onnx", f"--out={small}.onnx")),
    ]


def _line(*words: str) -> str:
    return data.printable(shlex.join((*_PROGRAM, *words)))


def _shown(path: Path) -> str:
    """The path as it is short from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
