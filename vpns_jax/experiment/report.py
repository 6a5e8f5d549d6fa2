"""Writes summary.json, the figures and the report from the results of cells."""

import functools
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax import data, models
from vpns_jax.analysis import classes, details, figures
from vpns_jax.analysis.density import DensityReport
from vpns_jax.analysis.report import text_table, write_report
from vpns_jax.analysis.summary import collapse_lines, note_lines
from vpns_jax.analysis.tables import aligned
from vpns_jax.data import augment
from vpns_jax.experiment import usage
from vpns_jax.experiment.config import Config
from vpns_jax.experiment.result import versions
from vpns_jax.experiment.workdir import Workdir
from vpns_jax.files import write_sealed
from vpns_jax.prompting import Prompt, create
from vpns_jax.training.network import Network, Subnetwork

PyTree = Any
# The number of images on which a cell's prompt is shown.
EXAMPLES = 6


def report(config: Config, folder: Workdir, results: list[dict[str, Any]], about: dict[str, Any]) -> dict[str, Any]:
    """Writes summary.json, the figures over all cells and report.html, and prints the tables.

    Args:
      config: the configuration.
      folder: the run's folder.
      results: one entry for each finished cell.
      about: entries of the summary about the whole experiment.

    Returns:
      The summary.

    Raises:
      UserError: the disk refuses.
    """
    summary = {
        "name": config.name,
        **about,
        "dataset": data.printable(config.data.name),
        "model": config.model.name,
        "protocol": config.protocol,
        "versions": versions(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "cells": results,
    }
    write_sealed(folder.path / "summary.json", summary)
    commands = usage.commands(
        summary["cells"],
        folder,
        own=config.model.name if models.is_own(config.model.name) else "",
        shrinks=hasattr(models.create(config.model.name, **config.model.options), "widths"),
    )
    write_report(summary, _figures(config, folder, summary), folder.path / "report.html", commands=commands)
    for line in collapse_lines(summary):
        sys.stdout.write(f"warning: {line}\n")
    for line in note_lines(summary):
        sys.stdout.write(f"note: {line}\n")
    sys.stdout.write(f"\n{text_table(summary)}\n{aligned(details.HEADINGS, details.details_cells(summary))}\n")
    lines = [classes.baseline(summary), details.speed_line(summary), f"report: {folder.path / 'report.html'}"]
    lines += [f"{what}\n    {command}" for what, command in commands]
    sys.stdout.write("".join(f"{line}\n" for line in lines if line))
    return summary


def draw_cell(
    folder: Workdir,
    result: dict[str, Any],
    network: Network,
    subnetwork: Subnetwork,
    examples: tuple[Any, Any],
    names: tuple[str, ...],
    rows: list[dict[str, Any]],
) -> None:
    """Draws a cell's training curves, its confusions and, if it has a prompt, the prompt alone and on example images.

    Args:
      folder: the run's folder.
      result: the cell's entry in the summary.
      network: the static half of the finished network.
      subnetwork: the finished network.
      examples: images, uint8 [b, h, w, c], and their labels, int32 [b].
      names: the names of the classes.
      rows: the cell's rows of metrics.jsonl.

    Raises:
      UserError: the disk refuses.
    """
    cell, confusion = result["cell"], classes.confusion_of(result)
    figures.curves_figure(rows, folder.figures / f"{cell}-curves.png")
    if confusion is not None:
        figures.confusion_figure(confusion, names, folder.figures / f"{cell}-confusion.png")
    if not network.prompted:
        return
    pictures, labels = examples
    delta, support, plain, prompted = jax.device_get(_prompted(network.prompt, subnetwork.prompt, pictures))
    figures.prompt_figure(delta, support, folder.figures / f"{cell}-prompt.png")
    figures.examples_figure(
        plain, prompted, [names[label] for label in labels.tolist()], folder.figures / f"{cell}-examples.png"
    )


@functools.partial(jax.jit, static_argnames="prompt")
def _prompted(prompt: Prompt, params: PyTree, pictures: jax.Array) -> tuple[jax.Array, ...]:
    """The perturbation, the pixels that it can change, and images without and with it."""
    # Those pixels that differ when all parameters do.
    changed = prompt.perturbation(jax.tree.map(jnp.ones_like, params))
    images = augment.to_float(pictures)
    # Plain images are put on the canvas, too, so that the two can be compared.
    plain = create("none", canvas_size=prompt.canvas_size).apply({}, images)
    return prompt.perturbation(params), jnp.any(changed != 0, axis=-1), plain, prompt.apply(params, images)


def one_line(result: dict[str, Any]) -> str:
    """Describes a finished cell in one line for the terminal.

    Args:
      result: the cell's entry in the summary.

    Returns:
      The line.
    """
    best = result["test"]["best"]
    prompted = "" if best["prompted"] is None else f"prompted {best['prompted']:.1%}, "
    seconds = sum(result["seconds"].values())
    return (
        f"{result['cell']}: test {prompted}plain {best['plain']:.1%}, "
        f"density {result['achieved_density']:.2%}, {seconds:.0f} s"
    )


def _figures(config: Config, folder: Workdir, summary: dict[str, Any]) -> list[tuple[str, str, Path]]:
    """Title, caption and file of every figure, the ones over all cells first."""
    shown = []
    if summary["cells"]:
        path = figures.sparsity_figure(summary, folder.figures / "sparsity.png")
        shown.append(
            ("Accuracy against sparsity", "Test accuracy of the weights with the best validation accuracy.", path)
        )
    first = [cell for cell in summary["cells"] if cell["seed"] == config.seeds[0]]
    for density in sorted({cell["density"] for cell in first if cell["density"] < 1}, reverse=True):
        reports = {
            cell["method"]: DensityReport.from_json(cell["layers"]) for cell in first if cell["density"] == density
        }
        path = figures.layers_figure(reports, folder.figures / f"layers-s{100 * (1 - density):.6g}.png")
        caption = f"Sparsity {1 - density:.4g}, seed {config.seeds[0]}; the head is shown separately."
        shown.append(("Density of each layer", caption, path))
    kinds = {
        "prompt": ("The prompt", "The perturbation that is added to every image, and its magnitude."),
        "examples": (
            "Prompted images",
            "Test images without and with the prompt; above each its label.",
        ),
        "confusion": (
            "Which classes are taken for which",
            "Test images, with the prompt if there is one; of many classes the worst and the most frequent mistakes.",
        ),
        "curves": ("Training", "Loss and validation accuracy, epoch by epoch."),
    }
    for cell in summary["cells"]:
        for kind, (title, caption) in kinds.items():
            path = folder.figures / f"{cell['cell']}-{kind}.png"
            if path.exists():
                shown.append((f"{title}: {cell['cell']}", caption, path))
    return shown
