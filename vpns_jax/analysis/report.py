"""The report of an experiment as one HTML file, and its table as Markdown or text."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vpns_jax.analysis import classes, details, latency, page
from vpns_jax.analysis.summary import collapse_lines, dig, note_lines
from vpns_jax.analysis.tables import HEADINGS, NOTE, NOTHING, markdown_table, percent, table_cells, text_table
from vpns_jax.files import write_whole

__all__ = ["collapse_lines", "markdown_table", "note_lines", "text_table", "write_report"]

_KINDS = ("prompted", "plain")


def write_report(
    summary: Mapping[str, Any],
    figures: Iterable[tuple[str, str, Path]],
    path: str | Path,
    *,
    commands: Iterable[tuple[str, str]] = (),
) -> Path:
    """Writes the report as one HTML file that needs no other files.

    Args:
      summary: the contents of summary.json; missing numbers of unfinished cells are shown as dashes.
      figures: title, caption and PNG file of each figure.
      path: the file to write; an old file is replaced.
      commands: what can be done with the results, in words and as a command line.

    Returns:
      `path`.

    Raises:
      UserError: a figure cannot be read, or the disk refuses the file; then nothing is written.
    """
    path = Path(path)
    parts = [
        page.element("h1", str(summary["name"])),
        page.element("p", _lead(summary), "note"),
        page.element("h2", "Results"),
        page.table([heading.replace("\n", " ") for heading in HEADINGS], table_cells(summary)),
        page.element("p", NOTE, "note"),
        *_sentence(classes.baseline(summary)),
        *_details(summary),
        *_collapse(summary),
        *_notes(summary),
        *_figures(figures),
        page.element("h2", "Cells"),
        *(_cell(cell, summary) for cell in summary["cells"]),
        page.element("h2", "How it was run"),
        page.element("pre", str(summary.get("command", ""))),
        page.table(("", ""), _facts(summary)),
        *_commands(commands),
    ]
    text = page.document(str(summary["name"]), parts)
    write_whole(path, text)
    return path


def _lead(summary: Mapping[str, Any]) -> str:
    names = [str(summary[key]) for key in ("model", "dataset", "device") if summary.get(key)]
    return ", ".join([*names, f"{summary['protocol']} protocol"] if summary.get("protocol") else names)


def _details(summary: Mapping[str, Any]) -> list[str]:
    headings = [heading.replace("\n", " ") for heading in details.HEADINGS]
    return [
        page.table(headings, details.details_cells(summary)),
        page.element("p", details.NOTE, "note"),
        *_sentence(details.speed_line(summary)),
    ]


def _sentence(text: str) -> list[str]:
    return [page.element("p", text)] if text else []


def _collapse(summary: Mapping[str, Any]) -> list[str]:
    lines = collapse_lines(summary)
    if not lines:
        return [page.element("p", "No layer collapsed in any cell reported here.")]
    return [page.element("h2", "Collapsed layers"), page.bullets(lines, "alarm")]


def _notes(summary: Mapping[str, Any]) -> list[str]:
    lines = note_lines(summary)
    return [page.element("h2", "Notes"), page.bullets(lines)] if lines else []


def _figures(figures: Iterable[tuple[str, str, Path]]) -> list[str]:
    drawn = [page.picture(title, caption, path) for title, caption, path in figures]
    return [page.element("h2", "Figures"), *drawn] if drawn else []


def _cell(cell: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    densities = [
        ("density asked for", percent(cell["density"], 2)),
        ("density achieved", percent(cell.get("achieved_density"), 2)),
        ("density without head", percent(cell.get("density_without_head"), 2)),
    ]
    errors = ("test, best", *(percent(dig(cell, "calibration_error", kind)) for kind in _KINDS))
    work = [
        (name, *(_number(dig(cell, "multiply_adds", which + end), ",") for which in ("dense", "masked")))
        for name, end in (("all", ""), ("without head", "_without_head"))
    ]
    layers = [_layer(layer) for layer in cell.get("layers") or ()]
    parts = [
        page.table(("accuracy, %", *_KINDS), _accuracies(cell)),
        page.table(("calibration error, %", *_KINDS), [errors]),
        page.table(("", "%"), densities),
        page.table(("multiply-adds an image", "dense", "masked"), work),
        page.table(("stage", "optimizer steps", "forward passes", "seconds"), _stages(cell)),
        *_sentence(latency.sentence(cell["latency"]) if cell.get("latency") else ""),
        *_classes(cell, summary),
    ]
    if layers:
        parts.append(page.fold("layers", [page.table(("layer", "weights", "kept", "density %"), layers)]))
    return page.fold(str(cell["cell"]), parts)


def _accuracies(cell: Mapping[str, Any]) -> list[tuple[str, ...]]:
    epoch = dig(cell, "val", "best", "epoch")
    best = "best on validation" if epoch is None else f"best on validation (epoch {epoch})"
    lines = [
        (f"{split}, {name}", *(percent(dig(cell, key, which, kind)) for kind in _KINDS))
        for key, split in (("val", "validation"), ("test", "test"))
        for which, name in (("best", best), ("last", "last"))
    ]
    mean = [percent(dig(cell, "mean_class_accuracy", kind)) for kind in _KINDS]
    always = percent(cell.get("majority_class"))
    return [
        *lines,
        ("test, best: mean per class", *mean),
        ("test: always the most frequent class", always, always),
    ]


def _classes(cell: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    """The table of classes and that of mistakes, of the way that is the cell's own: prompted if it has a prompt."""
    confusion = classes.confusion_of(cell)
    if confusion is None:
        return []
    names, shown = classes.names_of(summary, confusion), classes.shown(confusion)
    title = "classes" if len(shown) == len(names) else f"the worst {len(shown)} of {len(names)} classes"
    tables = [page.table(classes.CLASS_HEADINGS, classes.class_rows(confusion, names))]
    mistakes = classes.mistake_rows(confusion, names)
    if mistakes:
        tables.append(page.table(classes.MISTAKE_HEADINGS, mistakes))
    return [page.fold(title, tables)]


def _commands(commands: Iterable[tuple[str, str]]) -> list[str]:
    lines = [part for what, line in commands for part in (page.element("p", what), page.element("pre", line))]
    return [page.element("h2", "What to do with it"), *lines] if lines else []


def _layer(layer: Mapping[str, Any]) -> tuple[str, ...]:
    size, kept = layer["size"], layer["kept"]
    return str(layer["path"]), f"{size:,}", f"{kept:,}", percent(kept / size if size else None, 2)


def _stages(cell: Mapping[str, Any]) -> list[tuple[str, ...]]:
    keys = (("optimizer_steps", ",.0f"), ("forward_passes", ",.0f"), ("seconds", ",.1f"))
    stages = dict.fromkeys(stage for key, _ in keys for stage in cell.get(key) or {})
    return [(stage, *(_number(dig(cell, key, stage), form) for key, form in keys)) for stage in stages]


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [
        (key.replace("_", " "), f"{summary[key]:,}")
        for key in ("dense_parameters", "prunable")
        if summary.get(key) is not None
    ]
    source = summary.get("source") or {}
    for key, value in source.items():
        if value is not None:
            shown = f"{percent(value)}%" if key.endswith("accuracy") else str(value)
            facts.append((f"source network: {key.replace('_', ' ')}", shown))
    return facts + [(str(name), str(version)) for name, version in (summary.get("versions") or {}).items()]
