"""Accuracy against measured latency: the networks of a finished run, shrunk, in JAX and in ONNX Runtime.

    python -m benchmarks.deploy_run runs/quickstart --figure latency.png

All networks of a run take the same time until they are shrunk; the first row is that with the most multiply-adds, as it
is. See `benchmarks.deploy` for what is timed.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import deploy as measuring
from benchmarks import measure
from vpns_jax import deploy
from vpns_jax.analysis.style import INK, dress, hundredfold, looks, new_figure, save
from vpns_jax.deploy import Classifier
from vpns_jax.errors import UserError

WHOLE = "not shrunk"


def networks(run: Path) -> dict[str, Classifier]:
    """The networks of a run.

    Args:
      run: the run's folder.

    Returns:
      The networks by cell.

    Raises:
      UserError: there is none, or one does not say what it is.
    """
    paths = sorted((run / "subnetworks").glob("*.task.safetensors"))
    if not paths:
        raise UserError(f"{run} has no finished network in subnetworks/; name the folder of a finished run")
    return {path.name.removesuffix(".task.safetensors"): deploy.load(path) for path in paths}


def accuracy(network: Classifier) -> float | None:
    """The test accuracy that a network's file tells, prompted if it has a prompt."""
    told = network.description.origin.get("accuracy", {}).get("test", {})
    return told.get("plain") if told.get("prompted") is None else told["prompted"]


def rows(found: Mapping[str, Classifier], batch: int, repeats: int, round_to: int) -> list[dict[str, Any]]:
    """Measures the networks of a run.

    Args:
      found: the networks by cell.
      batch: images in a batch.
      repeats: how many times each runs.
      round_to: widths become multiples of this.

    Returns:
      A row of the table for one network as it is, and for each network shrunk.
    """
    shrunk = {name: deploy.shrink(network, round_to=round_to) for name, network in found.items()}
    largest = max(found.values(), key=lambda network: deploy.size_of(network).multiply_adds)
    table = measuring.rows({WHOLE: largest, **shrunk}, [batch], repeats)
    return [{"accuracy, %": _percent(found.get(row["network"])), **row} for row in table]


def _percent(network: Classifier | None) -> float | None:
    share = accuracy(network) if network else None
    return None if share is None else 100 * share


def figure(found: Mapping[str, Classifier], table: Sequence[Mapping[str, Any]], batch: int, path: Path) -> None:
    """Draws the networks of a run: faster is to the left, more accurate is higher.

    Args:
      found: the networks by cell.
      table: the rows.
      batch: images in a batch.
      path: the PNG to write.
    """
    methods = {name: str(network.description.origin.get("method", name)) for name, network in found.items()}
    styles = looks(list(dict.fromkeys(methods.values())))
    drawing = new_figure(9.0, 4.2)
    for axes, runtime in zip(drawing.subplots(1, 2, sharey=True), measuring.RUNTIMES, strict=True):
        for row in table:
            milliseconds = row[measuring.column(runtime, batch, "ms")]
            if row["network"] == WHOLE:
                axes.axvline(milliseconds, color=INK, linestyle=":", label=WHOLE)
                continue
            method = methods[row["network"]]
            color, marker = styles[method]
            height = hundredfold(accuracy(found[row["network"]]))
            axes.plot([milliseconds], [height], color=color, marker=marker, linestyle="none", label=method)
        axes.set_xlabel(f"{runtime}: milliseconds for a batch of {batch}", fontsize=10)
        axes.set_xlim(left=0)
        dress(axes, grid="y")
    drawing.axes[0].set_ylabel("test accuracy (%)", fontsize=10)
    handles, labels = drawing.axes[0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    drawing.legend(once.values(), once.keys(), loc="outside right upper", frameon=False, fontsize=9)
    save(drawing, path)


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark, prints a table and, with --figure and --json, writes files."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.deploy_run", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--round-to", type=int, default=measuring.ROUND_TO)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--json")
    chosen = parser.parse_args(arguments)
    try:
        found = networks(chosen.run)
    except UserError as error:
        parser.error(str(error))
    table = rows(found, chosen.batch, chosen.repeats, chosen.round_to)
    print(measure.table(table))
    print(measure.facts())
    if chosen.figure:
        figure(found, table, chosen.batch, chosen.figure)
    if chosen.json:
        measure.write_json(chosen.json, "deploy_run", table)


if __name__ == "__main__":
    main()
