"""Reads summary.json, which anyone may have edited, and checks everything that tables and figures need."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpns_jax.analysis.summary import dig
from vpns_jax.errors import UserError, short
from vpns_jax.files import read_perhaps_sealed

# The keys of a cell, with dots: those that it must have, and then those that it may have.
NAMES = ("cell", "method")
ACCURACIES = tuple(f"{split}.best.{kind}" for split in ("val", "test") for kind in ("plain", "prompted"))
MEANS = tuple(f"mean_class_accuracy.{kind}" for kind in ("plain", "prompted"))
SHARES = ("achieved_density", "density_without_head")
# A larger count or number of seconds cannot be a measurement.
LARGEST = 1e30
BY_STAGE = ("optimizer_steps", "forward_passes", "seconds")


def read(path: Path) -> dict[str, Any]:
    """Reads the summary of a sweep or a run.

    Args:
      path: the summary.json.

    Returns:
      The summary, in which every cell has a name, method, density, seed, and accuracies of its best epoch.

    Raises:
      UserError: the file cannot be read or does not match its checksum, holds no cells, or a field is missing or has
        another type.
    """
    summary = read_perhaps_sealed(path, "remove it, and run the command that made it again")
    cells = summary.get("cells") if isinstance(summary, dict) else None
    if not cells or not isinstance(cells, list):
        raise UserError(f"{path} holds no cells")
    for i, cell in enumerate(cells):
        if not isinstance(cell, dict):
            raise UserError(f"{path}: cells[{i}] is {short(cell)}; it must be an object")
        _check_cell(cell, f"{path}: cells[{i}].")
    return summary


def _check_cell(cell: Mapping[str, Any], at: str) -> None:
    for key in NAMES:
        _require(isinstance(cell.get(key), str), cell, key, at, "a string")
    seed = cell.get("seed")
    _require(_is_number(seed, 0, 2**32 - 1) and isinstance(seed, int), cell, "seed", at, "an integer in [0, 2**32)")
    _require(_is_number(cell.get("density"), 0, 1) and cell["density"] > 0, cell, "density", at, "a number in (0, 1]")
    for key in (*ACCURACIES, *MEANS):
        _require(_is_number_or_none(dig(cell, *key.split(".")), 0, 1), cell, key, at, "a number in [0, 1], or null")
    for split in ("val", "test"):
        known = any(dig(cell, split, "best", kind) is not None for kind in ("plain", "prompted"))
        _require(known, cell, f"{split}.best", at, "an object with an accuracy")
    for key in SHARES:
        _require(_is_number_or_none(cell.get(key), 0, 1), cell, key, at, "a number in [0, 1], or null")
    for key in BY_STAGE:
        value = cell.get(key)
        fine = value is None or (isinstance(value, dict) and all(map(_is_number_or_none, value.values())))
        _require(fine, cell, key, at, "an object of numbers")
    for i, layer in enumerate(_list(cell, "layers", at)):
        fine = isinstance(layer, dict) and isinstance(layer.get("path"), str)
        fine = fine and all(_is_number(layer.get(key)) for key in ("size", "kept"))
        _require(fine, {"layer": layer}, "layer", f"{at}layers[{i}]: ", "an object with path, size and kept")


def _list(cell: Mapping[str, Any], key: str, at: str) -> list[Any]:
    value = cell.get(key)
    _require(value is None or isinstance(value, list), cell, key, at, "a list")
    return value or []


def _require(fine: bool, cell: Mapping[str, Any], key: str, at: str, what: str) -> None:
    if not fine:
        raise UserError(f"{at}{key} is {short(dig(cell, *key.split('.')))}; it must be {what}")


def _is_number(value: Any, least: float = 0, most: float = LARGEST) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _is_number_or_none(value: Any, least: float = 0, most: float = LARGEST) -> bool:
    return value is None or _is_number(value, least, most)
