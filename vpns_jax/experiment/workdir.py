"""The folder of a run, and its files."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vpns_jax import files
from vpns_jax.errors import UserError
from vpns_jax.experiment import inputs
from vpns_jax.experiment.config import Config
from vpns_jax.experiment.folder_checks import check_folder, read_config, read_inputs
from vpns_jax.experiment.identity import identity
from vpns_jax.experiment.inputs import Input
from vpns_jax.experiment.lock import make_writable
from vpns_jax.parallel import processes
from vpns_jax.pruners import method
from vpns_jax.training.writers import MetricLog

# The key in a cell's file that says which run the result belongs to.
_KNOWN = "belongs_to"
# The keys of a config that decide which cells there are.
_AXES = ("methods", "densities", "seeds")


class Workdir:
    """The folder of one run, with these files.

    config.json          the configuration as run, with all methods, densities and seeds that were run in this folder
    inputs.json          digests of the data, the weights and all other inputs
    metrics.jsonl        one row an epoch
    summary.json         the results
    report.html          the results, to look at
    figures/             the figures of the report
    checkpoints/CELL/    the newest checkpoint of each stage, and the best of retrain and posthoc
    tensorboard/CELL/    TensorBoard events
    subnetworks/         each finished cell's best network, and the source network if it was trained here
    cells/CELL.json      the result of each finished cell
    """

    def __init__(self, path: Path, config: Config, current: Mapping[str, Input] | None = None) -> None:
        """Opens `path` to start or resume `config`. If there are several processes, only the first one writes.

        Args:
          path: a folder that does not exist yet, is empty, or holds a run.
          config: a checked configuration.
          current: the inputs of the run, from `inputs.of`; None if they are not known.

        Raises:
          UserError: the folder cannot be written, or holds a run of another configuration or on other inputs.
        """
        self.path = path.absolute()
        self._config = config.to_json()
        if not processes.is_primary():
            return
        check_folder(path, config, current)
        make_writable(path)
        for folder in (self.figures, self.path / "cells"):
            folder.mkdir(exist_ok=True)
        before = read_config(self.path) if self._config_path.exists() else None
        if before is not None:
            self._config |= {axis: list(dict.fromkeys((*before[axis], *self._config[axis]))) for axis in _AXES}
        self._write_inputs(current or {})
        # Written last: only a folder with a config.json holds a run.
        if self._config != before:
            files.write_sealed(self._config_path, self._config)

    @property
    def axes(self) -> tuple[list[str], list[float], list[int]]:
        """All methods, densities and seeds that were run in this folder, or are about to be."""
        return self._config["methods"], self._config["densities"], self._config["seeds"]

    @property
    def figures(self) -> Path:
        """The folder of figures."""
        return self.path / "figures"

    @property
    def log(self) -> MetricLog:
        """The rows of metrics.jsonl."""
        return MetricLog(self.path / "metrics.jsonl")

    def checkpoints(self, cell: str) -> Path:
        """Names the folder of a cell's checkpoints.

        Args:
          cell: the cell's name.

        Returns:
          The path, which need not exist.
        """
        return self.path / "checkpoints" / cell

    def tensorboard(self, cell: str) -> Path:
        """Names the folder of a cell's TensorBoard events.

        Args:
          cell: the cell's name.

        Returns:
          The path, which need not exist.
        """
        return self.path / "tensorboard" / cell

    def subnetwork(self, cell: str) -> Path:
        """Names the file of a cell's best network.

        Args:
          cell: the cell's name.

        Returns:
          The path, which need not exist.
        """
        return self.path / "subnetworks" / f"{cell}.safetensors"

    def cell(self, cell: str) -> Path:
        """Names the file of a cell's result.

        Args:
          cell: the cell's name.

        Returns:
          The path, which need not exist.
        """
        return self.path / "cells" / f"{cell}.json"

    def add_input(self, name: str, current: Input) -> None:
        """Adds an input that is known only after the run has begun.

        Args:
          name: one of the names in `inputs`.
          current: the input.

        Raises:
          UserError: the input changed since the run began, inputs.json is damaged, or the disk refuses.
        """
        if processes.is_primary():
            inputs.compare(read_inputs(self.path), {name: current}, self.path)
            self._write_inputs({name: current})
        processes.barrier("input known")

    def digests(self, method_name: str) -> dict[str, str]:
        """Selects the digests of the inputs that a cell is made from.

        Args:
          method_name: the cell's method; "" for the source network that is trained here.

        Returns:
          The digests, by the names in `inputs`.

        Raises:
          UserError: inputs.json is damaged.
        """
        unused = set() if method_name and method(method_name).given else {inputs.MASK}
        if not method_name:
            unused.add(inputs.SOURCE)
        return {name: known["digest"] for name, known in read_inputs(self.path).items() if name not in unused}

    def fingerprint(self, method_name: str, cell: str) -> str:
        """Computes a digest of everything that decides the numbers of a cell.

        That is the keys that its method reads, its inputs, and its name.

        Args:
          method_name: the cell's method; "" for the source network that is trained here.
          cell: the cell's name, which contains density and seed.

        Returns:
          The digest.

        Raises:
          UserError: inputs.json is damaged.
        """
        keys = identity(self._config, [method_name] if method_name else [])
        return files.digest_json([keys, self.digests(method_name), cell])

    def write_cell(self, cell: str, result: dict[str, Any]) -> None:
        """Writes the result of a cell, which marks the cell as finished.

        Args:
          cell: the cell's name.
          result: the result; its key "method" names the method.

        Raises:
          UserError: inputs.json or a line of the log is damaged, or the disk refuses.
        """
        known = {"fingerprint": self.fingerprint(result["method"], cell), "rows": _digest_rows(self.log.rows(), cell)}
        files.write_sealed(self.cell(cell), {**result, _KNOWN: known})

    def read_cell(self, cell: str) -> dict[str, Any] | None:
        """Reads a cell's result.

        Args:
          cell: the cell's name.

        Returns:
          The result; None if the cell is not finished.

        Raises:
          UserError: the file is damaged, or belongs to another cell or run.
        """
        result = self._read_cell(cell)
        return None if result is None else {key: value for key, value in result.items() if key != _KNOWN}

    def lost_rows(self, cells: Iterable[str]) -> list[str]:
        """Lists finished cells whose rows are no longer in the log. Nothing depends on these rows any more.

        Args:
          cells: names of cells.

        Returns:
          The names of those cells.

        Raises:
          UserError: a cell's file or a line of the log is damaged.
        """
        rows, results = self.log.rows(), {cell: self._read_cell(cell) for cell in cells}
        return [
            cell for cell, result in results.items() if result and result[_KNOWN]["rows"] != _digest_rows(rows, cell)
        ]

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

    def _write_inputs(self, current: Mapping[str, Input]) -> None:
        known = read_inputs(self.path)
        wanted = known | {name: dataclasses.asdict(read) for name, read in current.items()}
        if wanted != known or not (self.path / "inputs.json").exists():
            files.write_sealed(self.path / "inputs.json", wanted)


def _digest_rows(rows: list[dict[str, Any]], cell: str) -> str:
    return files.digest_json([row for row in rows if row["cell"] == cell])
