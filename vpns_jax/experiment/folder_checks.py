"""Refuses to mix two configurations, or two sets of inputs, in the folder of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpns_jax import files
from vpns_jax.errors import UserError
from vpns_jax.experiment import inputs
from vpns_jax.experiment.config import Config
from vpns_jax.experiment.identity import identity
from vpns_jax.experiment.inputs import Input
from vpns_jax.experiment.lock import LOCK


def check_folder(path: Path, config: Config, current: Mapping[str, Input] | None = None) -> None:
    """Checks, without writing anything, that a run may use a folder.

    Args:
      path: the folder, which need not exist.
      config: a checked configuration.
      current: the inputs of the run, from `inputs.of`; None if they are not known yet.

    Raises:
      UserError: the folder holds something else, or a run of another configuration or with other inputs.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"--workdir {path} cannot be written: it is not a folder")
    if (path / "config.json").exists():
        if not (path / "inputs.json").exists():
            raise UserError(
                f"--workdir {path} has no inputs.json: it holds a run of an older version, or has lost that file, and "
                "it is unknown whether data and weights are the same; choose another --workdir"
            )
        _check_same(path, config)
        inputs.compare(read_inputs(path), current or {}, path)
    # Files that a kill leaves behind before there is a config.json are no reason to refuse the folder.
    elif path.exists() and any(not _left_by_a_kill(entry) for entry in path.iterdir()):
        raise UserError(f"--workdir {path} is neither empty nor a run's folder, with a config.json; choose another")


def read_config(path: Path) -> dict[str, Any]:
    """Reads the configuration of the run in a folder.

    Args:
      path: the folder.

    Returns:
      It as JSON, without its checksum.

    Raises:
      UserError: the file is missing, damaged or edited.
    """
    return files.read_sealed(path / "config.json", "restore it, or choose another --workdir")


def read_inputs(path: Path) -> dict[str, Any]:
    """Reads the digests of the inputs of the run in a folder.

    Args:
      path: the folder.

    Returns:
      It as JSON, without its checksum; empty if there is no such file yet.

    Raises:
      UserError: the file is damaged or edited.
    """
    known = path / "inputs.json"
    return files.read_sealed(known, "restore it, or choose another --workdir") if known.exists() else {}


def _left_by_a_kill(entry: Path) -> bool:
    if entry.name in ("figures", "cells"):
        return entry.is_dir() and not any(entry.iterdir())
    return entry.name in (LOCK, ".writable", "inputs.json") or entry.suffix == ".tmp"


def _check_same(path: Path, config: Config) -> None:
    """Checks that the keys that decide numbers have the same values as in the run in `path`.

    Raises:
      UserError: a key differs, or config.json is damaged.
    """
    before = read_config(path)
    there, here = (identity(keys, before["methods"]) for keys in (before, config.to_json()))
    changed = sorted(key for key in here | there if here.get(key) != there.get(key))
    if changed:
        key = changed[0]
        raise UserError(
            f"--workdir {path} holds a run of another config: config.{key} is {there.get(key)!r} there and "
            f"{here.get(key)!r} here ({len(changed)} keys differ); choose another --workdir"
        )
