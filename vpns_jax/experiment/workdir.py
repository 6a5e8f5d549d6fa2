"""The folder of a run: what lies where, and the refusal to mix two configurations, or two sets of data, in one."""

import contextlib
import dataclasses
import fcntl
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vpns_jax import files
from vpns_jax.errors import UserError
from vpns_jax.experiment import inputs
from vpns_jax.experiment.config import Config
from vpns_jax.experiment.identity import identity
from vpns_jax.experiment.inputs import Input
from vpns_jax.parallel import processes
from vpns_jax.pruners import method
from vpns_jax.storage import storage_errors
from vpns_jax.training.writers import MetricLog

_LOCK = ".lock"
# The key of a cell's file under which it says what the result belongs to.
_KNOWN = "belongs_to"
# What of a config tells which cells there are.
_AXES = ("methods", "densities", "seeds")


class Workdir:
    """Paths of one run:

    config.json          the configuration as run; of methods, densities and seeds all that were run in this folder
    inputs.json          digests of the data, the weights and whatever else was read
    metrics.jsonl        a row an epoch
    summary.json         the results
    report.html          the results to look at
    figures/             its pictures
    checkpoints/CELL/    of each stage, the newest and the best
    tensorboard/CELL/    events
    subnetworks/         each finished cell's best network, and the source's if it was trained here, to load elsewhere
    cells/CELL.json      the result of each finished cell
    """

    def __init__(self, path: Path, config: Config, found: Mapping[str, Input] | None = None) -> None:
        """Opens `path` to start or resume `config`; of several processes, the first one makes and writes it.

        Args:
          path: a folder that there is not yet, an empty one, or a run's.
          config: a checked configuration.
          found: what it reads, as `inputs.of` has it; by default nothing is known of that.

        Raises:
          UserError: the folder cannot be written, or holds a run of another configuration or on other inputs.
        """
        self.path = path.absolute()
        self._config = config.to_json()
        if not processes.first():
            return
        check_folder(path, config, found)
        _make(path)
        for folder in (self.figures, self.path / "cells"):
            folder.mkdir(exist_ok=True)
        before = files.read_json(self._config_path) if self._config_path.exists() else None
        if before is not None:
            self._config |= {axis: list(dict.fromkeys((*before[axis], *self._config[axis]))) for axis in _AXES}
        self._write_inputs(found or {})
        # Last: a folder that has it is a run's.
        if self._config != before:
            files.write_json(self._config_path, self._config)

    @property
    def axes(self) -> tuple[list[str], list[float], list[int]]:
        """Methods, densities and seeds of all that was run in this folder, or is about to be."""
        return self._config["methods"], self._config["densities"], self._config["seeds"]

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

    def cell(self, cell: str) -> Path:
        return self.path / "cells" / f"{cell}.json"

    def add_input(self, what: str, found: Input) -> None:
        """Remembers an input that is known only once the run has begun.

        Args:
          what: what to call it, one of the names in `inputs`.
          found: its name and digest.

        Raises:
          UserError: it is not what it was when the run began.
        """
        if processes.first():
            inputs.compare(_read_inputs(self.path), {what: found}, self.path)
            self._write_inputs({what: found})
        processes.wait("input known")

    def digests(self, name: str) -> dict[str, str]:
        """The digests of what a cell is made from, by what it is.

        Args:
          name: of the cell's method; "" for the source network that is trained here.
        """
        passed_over = set() if name and method(name).given else {inputs.MASK}
        if not name:
            passed_over.add(inputs.SOURCE)
        return {what: one["digest"] for what, one in _read_inputs(self.path).items() if what not in passed_over}

    def fingerprint(self, name: str, cell: str) -> str:
        """Names all that decides the numbers of a cell: the keys that its method reads, its inputs, and its name.

        Args:
          name: of its method; "" for the source network that is trained here.
          cell: its own name, which holds density and seed.
        """
        return files.digest_json([identity(self._config, [name] if name else []), self.digests(name), cell])

    def write_cell(self, cell: str, result: dict[str, Any]) -> None:
        """Marks a cell as finished.

        Args:
          cell: its name.
          result: with its "method".
        """
        known = {"fingerprint": self.fingerprint(result["method"], cell), "rows": _digest_rows(self.log.rows(), cell)}
        files.write_sealed(self.cell(cell), {**result, _KNOWN: known})

    def read_cell(self, cell: str) -> dict[str, Any] | None:
        """A finished cell's result; None if it is not finished.

        Raises:
          UserError: the file is damaged, or is another cell's.
        """
        result = self._read_cell(cell)
        return None if result is None else {key: value for key, value in result.items() if key != _KNOWN}

    def lost_rows(self, cells: Iterable[str]) -> list[str]:
        """The finished ones of some cells whose rows the log has lost; by rows of these nothing is decided any more.

        Raises:
          UserError: a cell's file is damaged, or a line of the log.
        """
        rows, found = self.log.rows(), {cell: self._read_cell(cell) for cell in cells}
        return [cell for cell, one in found.items() if one and one[_KNOWN]["rows"] != _digest_rows(rows, cell)]

    def _read_cell(self, cell: str) -> dict[str, Any] | None:
        path = self.cell(cell)
        if not path.exists():
            return None
        result = files.read_sealed(path, "remove it to evaluate the cell again")
        if result.get("cell") != cell or result[_KNOWN]["fingerprint"] != self.fingerprint(result["method"], cell):
            raise UserError(f"{path} is not the result of {cell} in this run; remove it to evaluate the cell again")
        return result

    @property
    def _config_path(self) -> Path:
        return self.path / "config.json"

    def _write_inputs(self, found: Mapping[str, Input]) -> None:
        known = _read_inputs(self.path)
        wanted = known | {what: dataclasses.asdict(one) for what, one in found.items()}
        if wanted != known or not (self.path / "inputs.json").exists():
            files.write_sealed(self.path / "inputs.json", wanted)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the folder of a run alone, until the end of the block or of this process, however that ends.

    Args:
      path: made if there is none. Of several processes the first one holds it for all.

    Raises:
      UserError: another process holds it, or it cannot be written.
    """
    if not processes.first():
        yield
        return
    _make(path)
    with storage_errors(path), (path / _LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"--workdir {path} is in use by {file.read(100).strip() or 'another process'}; wait for it to end, "
                "or choose another --workdir"
            ) from error
        except OSError:
            pass  # Some network file systems have no locks: as without one.
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        # The system lets go of it when the file is closed, which a kill does, too.
        yield


def check_folder(path: Path, config: Config, found: Mapping[str, Input] | None = None) -> None:
    """Raises `UserError` if `path` is not for `config` to run in; touches nothing.

    Args:
      path: the folder of a run, or for one.
      config: a checked configuration.
      found: what it reads, as `inputs.of` has it, where that is known.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"--workdir {path} cannot be written: it is not a folder")
    if (path / "config.json").exists():
        if not (path / "inputs.json").exists():
            raise UserError(
                f"--workdir {path} has no inputs.json: it holds a run of an older version, or has lost that file, and "
                "nobody could say whether data and weights are what they were; choose another --workdir"
            )
        _check_same(path, config)
        inputs.compare(_read_inputs(path), found or {}, path)
    # What a kill may leave behind before there is a config is no reason to refuse.
    elif path.exists() and any(not _left_by_a_kill(entry) for entry in path.iterdir()):
        raise UserError(f"--workdir {path} is neither empty nor a run's folder, with a config.json; choose another")


def _left_by_a_kill(entry: Path) -> bool:
    if entry.name in ("figures", "cells"):
        return entry.is_dir() and not any(entry.iterdir())
    return entry.name in (_LOCK, ".writable", "inputs.json") or entry.suffix == ".tmp"


def _check_same(path: Path, config: Config) -> None:
    """Raises `UserError` if a key that decides the numbers of what was run in `path` is another one now."""
    before = files.read_json(path / "config.json")
    if not isinstance(before, dict) or not all(isinstance(before.get(axis), list) for axis in _AXES):
        raise UserError(f"{path / 'config.json'} is not a run's config; mend or remove it")
    try:
        found, wanted = (identity(one, before["methods"]) for one in (before, config.to_json()))
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path / 'config.json'} is not a run's config; mend or remove it") from error
    changed = sorted(key for key in wanted | found if wanted.get(key) != found.get(key))
    if changed:
        key = changed[0]
        raise UserError(
            f"--workdir {path} holds a run of another config: config.{key} is {found.get(key)!r} there and "
            f"{wanted.get(key)!r} here ({len(changed)} keys differ); choose another --workdir"
        )


def _digest_rows(rows: list[dict[str, Any]], cell: str) -> str:
    return files.digest_json([row for row in rows if row["cell"] == cell])


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Asking the permission bits would not tell of a read-only disk.
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"--workdir {path} cannot be written: {error.strerror}") from error


def _read_inputs(path: Path) -> dict[str, Any]:
    known = path / "inputs.json"
    return files.read_sealed(known, "restore it, or choose another --workdir") if known.exists() else {}
