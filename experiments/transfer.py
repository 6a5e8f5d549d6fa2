"""Masks found on one data set, retrained on another, beside the masks that the methods of a config find there.

    python -m experiments.transfer --from='runs/quickstart/subnetworks/vpns-s90-seed*.safetensors' \\
        --config=TARGET_CONFIG --workdir=runs/transfer --jobs=2

Each cell starts from the config's pretrained weights under the mask of an earlier run's cell; a mask of VPNs, or of a
method with a prompt, is retrained with a new one. WORKDIR/transfer.md and .csv hold accuracies, and differences from
the same method run on the target itself, seed by seed. Run again, it does what is missing.
"""

import contextlib
import dataclasses
import glob
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags

from experiments import paired, sweep, workers
from vpns_jax import cli, files
from vpns_jax.errors import UserError
from vpns_jax.experiment.config import Config

_FROM = flags.DEFINE_list("from", [], "Networks of earlier runs, FOLDER/subnetworks/CELL.safetensors; * is allowed.")
_CELL = re.compile(r"(?P<method>.+)-s(?P<sparsity>[\d.]+)-seed(?P<seed>\d+)\.safetensors")


@dataclasses.dataclass(frozen=True)
class Source:
    """The cell of an earlier run that a mask is taken from."""

    path: Path
    data: str
    method: str
    density: float
    seed: int

    @property
    def label(self) -> str:
        return f"{self.method} from {self.data}"


def main(argv: list[str]) -> int:
    """Returns the exit code: 0, 1 if a cell failed, 2 for something that the caller can mend."""

    def run() -> int:
        config, folder = cli.parse(argv)
        line = shlex.join(["python", "-m", "experiments.transfer", *argv[1:]])
        found = sources(_FROM.value, config)
        return transfer(config, folder, line, found, jobs=sweep.JOBS.value, devices=sweep.DEVICES.value)

    return cli.end(run)


def sources(patterns: list[str], config: Config) -> list[Source]:
    """The cells that paths with or without * name.

    Raises:
      UserError: nothing is named so, a file is no cell's of a run, or of a sparsity that the config does not have.
    """
    found = []
    for pattern in patterns:
        paths = [Path(path) for path in sorted(glob.glob(pattern)) if not path.endswith(".task.safetensors")]  # noqa: PTH207
        if not paths:
            raise UserError(f"--from: there is no {pattern}")
        found += [_source(path.absolute(), config) for path in paths]
    if not found:
        raise UserError("--from is missing; name FOLDER/subnetworks/CELL.safetensors of an earlier run")
    return found


def cells(config: Config, found: list[Source]) -> dict[tuple[str, float, int], tuple[Config, Source]]:
    """By label, density and seed each cell to run under a mask, and the mask's source.

    A single mask is retrained with every seed, several of one method each with their own.

    Raises:
      UserError: several masks are not of the config's seeds, or two of the same.
    """
    groups: dict[tuple[str, float], dict[int, Source]] = {}
    for source in found:
        group = groups.setdefault((source.label, source.density), {})
        if source.seed in group:
            raise UserError(
                f"--from names two of {source.label} with one seed: {source.path}, {group[source.seed].path}"
            )
        group[source.seed] = source
    made = {}
    for (label, density), group in groups.items():
        if len(group) > 1 and set(group) != set(config.seeds):
            raise UserError(
                f"--from names {label} at seeds {sorted(group)}; config.seeds are {sorted(config.seeds)}: give one "
                "mask for all of them, or one of each"
            )
        for seed in config.seeds:
            source = group.get(seed, next(iter(group.values())))
            made[label, density, seed] = (_cell(config, source, seed), source)
    return made


def transfer(
    config: Config,
    folder: Path,
    line: str,
    found: list[Source],
    *,
    jobs: int,
    devices: list[str],
    check: Callable[[Config], None] | None = None,
    work: Callable[[sweep.Run], None] = sweep.run_one,
) -> int:
    """Runs what is missing under `folder`, then writes and prints the table; see the module."""
    from vpns_jax.experiment import inputs, run
    from vpns_jax.experiment.workdir import Workdir, check_folder, locked

    read = inputs.of(config)
    check_folder(folder, config, read)
    runs: dict[str, sweep.Run] = {}
    labels, references, checks = {}, {}, {"the target": config}
    for (label, density, seed), (one, source) in cells(config, found).items():
        name = re.sub(r"[^\w.+-]", "_", f"{label}-s{100 * (1 - density):.6g}-seed{seed}")
        runs[name] = (one, folder / "runs" / name, line)
        # One that is finished would pass for one of another mask.
        if runs[name][1].exists():
            check_folder(runs[name][1], one, read | {inputs.MASK: inputs.mask(one)})
        labels[name], references[label] = label, source.method
        checks[str(source.path)] = one
    for cell in run.cells(config):
        one = sweep.one_cell(config, cell.method, cell.density, cell.seed)
        runs[cell.name] = (one, folder / "runs" / cell.name, line)
    # In a process of its own: this one must not lay hands on the devices that the cells need.
    for outcome in workers.run_all(checks, check or run.check, workers=1, devices=devices):
        if outcome.error:
            raise UserError(outcome.error[0])
    with locked(folder):
        Workdir(folder, config, read)
        code = sweep.run_cells(runs, folder, jobs=jobs, devices=devices, work=work)
    results = [
        cell | {"method": labels.get(name, cell["method"])}
        for name, summary in sweep.finished({name: home for name, (_, home, _) in runs.items()}).items()
        for cell in summary["cells"]
    ]
    if results:
        paired.write(paired.paired_table(results, references, "the same method there"), folder, "transfer")
    return code


def _source(path: Path, config: Config) -> Source:
    named, config_path = _CELL.fullmatch(path.name), path.parent.parent / "config.json"
    data = None
    if named and config_path.is_file():
        with contextlib.suppress(KeyError, TypeError):
            data = files.read_perhaps_sealed(config_path, f"restore it, or move {path.name} elsewhere")["data"]["name"]
    if named is None or not isinstance(data, str):
        raise UserError(f"--from: {path} is not FOLDER/subnetworks/CELL.safetensors of a run")
    densities = {f"{100 * (1 - density):.6g}": density for density in config.densities}
    if named["sparsity"] not in densities:
        raise UserError(f"--from: {path} is of {named['sparsity']}% sparsity; config.densities are {config.densities}")
    return Source(path, data, named["method"], densities[named["sparsity"]], int(named["seed"]))


def _cell(config: Config, source: Source, seed: int) -> Config:
    from vpns_jax import pruners

    found = pruners.method(source.method)
    suffix = pruners.PROMPT if found.prompted else pruners.POSTHOC if found.posthoc else ""
    changes = {"transfer.mask": str(source.path), "methods": (f"transfer{suffix}",)}
    return sweep.changed(config, changes | {"densities": (source.density,), "seeds": (seed,)})


if __name__ == "__main__":
    sys.exit(main(sys.argv))
