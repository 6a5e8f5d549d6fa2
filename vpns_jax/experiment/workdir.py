"""The folder of a run: what lies where, and the refusal to mix two configurations in one."""

import json
from pathlib import Path
from typing import Any

from vpns_jax.errors import UserError
from vpns_jax.experiment.config import Config
from vpns_jax.files import write_json
from vpns_jax.parallel import processes
from vpns_jax.training.writers import MetricLog


class Workdir:
    """Paths of one run:

    config.json          the configuration as run
    metrics.jsonl        a row an epoch
    summary.json         the results
    report.html          the results to look at
    figures/             its pictures
    checkpoints/CELL/    of each stage, the newest and the best
    tensorboard/CELL/    events
    subnetworks/         each finished cell's best network, and the source's if it was trained here, to load elsewhere
    cells/CELL.json      the result of each finished cell
    """

    def __init__(self, path: Path, config: Config) -> None:
        """Opens `path` to start or resume `config`; of several processes, the first one makes and writes it.

        Raises:
          UserError: the folder cannot be written, or holds a run of another configuration.
        """
        self.path = path.absolute()
        self._config = self.path / "config.json"
        if not processes.first():
            return
        check_folder(path, config)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # Asking the permission bits would not tell of a read-only disk.
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(f"--workdir {path} cannot be written: {error.strerror}") from error
        if not self._config.exists():
            write_json(self._config, config.to_json())
        for folder in (self.figures, self.path / "cells"):
            folder.mkdir(exist_ok=True)

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def log(self) -> MetricLog:
        return MetricLog(self.path / "metrics.jsonl")

    def checkpoints(self, cell: str) -> Path:
        return self.path / "checkpoints" / cell

    def tensorboard(self, cell: str) -> Path:
        return self.path / "tensorboard" / cell

    def subnetwork(self, cell: str) -> Path:
        return self.path / "subnetworks" / f"{cell}.safetensors"

    def write_cell(self, cell: str, result: dict[str, Any]) -> None:
        """Marks a cell as finished."""
        write_json(self.path / "cells" / f"{cell}.json", result)

    def read_cell(self, cell: str) -> dict[str, Any] | None:
        """A finished cell's result; None if it is not finished."""
        path = self.path / "cells" / f"{cell}.json"
        if not path.exists():
            return None
        result = _read_json(path)
        if result.get("cell") != cell:
            raise UserError(f"{path} is not the result of {cell}; remove it to evaluate the cell again")
        return result


def check_folder(path: Path, config: Config) -> None:
    """Raises `UserError` if `path` is not for `config` to run in; touches nothing."""
    known = path / "config.json"
    if path.exists() and not path.is_dir():
        raise UserError(f"--workdir {path} cannot be written: it is not a folder")
    if known.exists():
        _check_same(path, config, _read_json(known))
    # What a kill may leave behind before there is a config is no reason to refuse.
    elif path.exists() and any(entry.name != ".writable" and entry.suffix != ".tmp" for entry in path.iterdir()):
        raise UserError(f"--workdir {path} is neither empty nor a run's folder; choose another")


def _check_same(path: Path, config: Config, found: dict[str, Any]) -> None:
    wanted, found = _flat(config.identity()), _flat({key: value for key, value in found.items() if key != "mesh"})
    changed = sorted(key for key in wanted | found if wanted.get(key) != found.get(key))
    if changed:
        key = changed[0]
        raise UserError(
            f"--workdir {path} holds a run of another config: {key} is {found.get(key)!r} there and "
            f"{wanted.get(key)!r} here ({len(changed)} keys differ); choose another --workdir"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; mend or remove it") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object; mend or remove it")
    return value


def _flat(tree: dict[str, Any], prefix: str = "config") -> dict[str, Any]:
    """Leaves by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}.{key}"
        flat |= _flat(value, name) if isinstance(value, dict) else {name: value}
    return flat
