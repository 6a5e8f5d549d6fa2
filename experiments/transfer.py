r"""Transfer: retrains masks from one data set on another, and compares them with masks that are found there.

    python -m experiments.transfer --from='runs/digits/subnetworks/vpns-s90-seed*.safetensors' \
        --config=TARGET_CONFIG --workdir=runs/transfer --jobs=2

Each cell starts from the config's pretrained weights under the mask of an earlier run. If the mask's method has a
prompt, a new prompt is learned. WORKDIR/transfer.md and .csv hold accuracies, and differences from the same method when
it finds its mask on the target data, seed by seed. Run it again to do what is missing.
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

_FROM = flags.DEFINE_list("from", [], "Networks of earlier runs: FOLDER/subnetworks/CELL.safetensors, also with *.")
# The most bytes of a label in a folder's name.
_MOST_LABEL = 170
_CELL = re.compile(r"(?P<method>.+)-s(?P<sparsity>[\d.]+)-seed(?P<seed>\d+)\.safetensors")


@dataclasses.dataclass(frozen=True)
class Source:
    """The cell of an earlier run from which a mask is taken.

    Attributes:
      path: its network, CELL.safetensors.
      data: the data set of the earlier run.
      method: its method.
      density: its density.
      seed: its seed.
    """

    path: Path
    data: str
    method: str
    density: float
    seed: int

    @property
    def label(self) -> str:
        """The name of its method and data in tables."""
        return f"{self.method} from {self.data}"


def main(argv: list[str]) -> int:
    """Runs the command.

    Args:
      argv: the command line, starting with the program's name.

    Returns:
      The exit code: 0, 1 if a cell failed, or 2 after an error that the user can fix.
    """

    def run() -> int:
        config, folder = cli.parse(argv)
        line = shlex.join(["python", "-m", "experiments.transfer", *argv[1:]])
        masks = sources(_FROM.value, config)
        return transfer(config, folder, line, masks, jobs=sweep.JOBS.value, devices=sweep.DEVICES.value)

    return cli.end(run)


def sources(patterns: list[str], config: Config) -> list[Source]:
    """Finds the cells of earlier runs.

    Args:
      patterns: paths, with or without *.
      config: the configuration.

    Returns:
      The cells.

    Raises:
      UserError: a path matches nothing, a file is not a cell of a run, or its sparsity is not one of the config's.
    """
    masks = []
    for pattern in patterns:
        paths = [Path(path) for path in sorted(glob.glob(pattern)) if not path.endswith(".task.safetensors")]  # noqa: PTH207
        if not paths:
            raise UserError(f"--from: there is no {pattern}")
        masks += [_source(path.absolute(), config) for path in paths]
    if not masks:
        raise UserError("--from is missing; name FOLDER/subnetworks/CELL.safetensors of an earlier run")
    return masks


def cells(config: Config, masks: list[Source]) -> dict[tuple[str, float, int], tuple[Config, Source]]:
    """Makes the cells that retrain masks.

    A single mask is retrained with every seed of the config. Several masks of one method are each retrained with their
    own seed.

    Args:
      config: the configuration.
      masks: the cells of earlier runs.

    Returns:
      The config of each cell and the source of its mask, by label, density and seed.

    Raises:
      UserError: the seeds of several masks are not those of the config, or two masks have the same seed.
    """
    groups: dict[tuple[str, float], dict[int, Source]] = {}
    for source in masks:
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
    masks: list[Source],
    *,
    jobs: int,
    devices: list[str],
    check: Callable[[Config], None] | None = None,
    work: Callable[[sweep.Run], None] = sweep.run_one,
) -> int:
    """Runs the missing cells, then writes and prints the table; see the module.

    Args:
      config: the configuration.
      folder: the folder of the study.
      line: the command, for reports.
      masks: the cells of earlier runs.
      jobs: the number of cells that run at a time.
      devices: CUDA_VISIBLE_DEVICES of each worker; empty to leave it alone.
      check: checks a config, in another process; None for `run.check`.
      work: runs a cell, in another process.

    Returns:
      The exit code: 0, or 1 if a cell failed.

    Raises:
      UserError: a cell cannot run, two masks would share a folder, the folder holds something else, or the disk
        refuses.
    """
    from vpns_jax.experiment import inputs, run
    from vpns_jax.experiment.folder_checks import check_folder
    from vpns_jax.experiment.lock import locked
    from vpns_jax.experiment.workdir import Workdir

    read = inputs.of(config)
    check_folder(folder, config, read)
    runs: dict[str, sweep.Run] = {}
    labels: dict[str, str] = {}
    references, checks = {}, {"the target": config}
    for (label, density, seed), (retrained, source) in cells(config, masks).items():
        name = _folder_name(label, density, seed)
        if name in runs:
            raise UserError(
                f"--from: {label} and {labels[name]} would share the folder runs/{name}; rename one data set's folder"
            )
        runs[name] = (retrained, folder / "runs" / name, line)
        # Otherwise a finished run under another mask would be taken for this one.
        if runs[name][1].exists():
            check_folder(runs[name][1], retrained, read | {inputs.MASK: inputs.mask(retrained)})
        labels[name], references[label] = label, source.method
        checks[str(source.path)] = retrained
    for cell in run.cells(config):
        reduced = sweep.one_cell(config, cell.method, cell.density, cell.seed)
        runs[cell.name] = (reduced, folder / "runs" / cell.name, line)
    # The check runs in another process, because this one must not take the devices that the cells need.
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


def _folder_name(label: str, density: float, seed: int) -> str:
    """The name of a cell's folder. A label may hold a path that is too long for it, which a digest then shortens."""
    label, end = re.sub(r"[^\w.+-]", "_", label), f"-s{100 * (1 - density):.6g}-seed{seed}"
    if len(label.encode()) > _MOST_LABEL:
        label = f"{label.encode()[:_MOST_LABEL].decode(errors='ignore')}-{files.digest_json(label)[:16]}"
    return f"{label}{end}"


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

    chosen = pruners.method(source.method)
    suffix = pruners.PROMPT if chosen.prompted else pruners.POSTHOC if chosen.posthoc else ""
    changes = {"transfer.mask": str(source.path), "methods": (f"transfer{suffix}",)}
    return sweep.changed(config, changes | {"densities": (source.density,), "seeds": (seed,)})


if __name__ == "__main__":
    sys.exit(main(sys.argv))
