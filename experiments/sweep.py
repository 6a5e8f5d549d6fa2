"""Sweeps: runs every cell of a config (method x density x seed) as a run of its own, several at a time.

    python -m experiments.sweep --config=configs/digits_sweep.py --workdir=runs/sweep --jobs=2

A cell that fails stops no other cell. It is named at the end, and its traceback is in WORKDIR/failed-CELL.txt. Run the
sweep again to do what is missing. WORKDIR/runs/ holds the runs, WORKDIR/summary.json all results.
"""

import dataclasses
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from experiments import summaries, tuning, workers
from vpns_jax import cli
from vpns_jax.experiment.config import Config

JOBS = flags.DEFINE_integer(
    "jobs",
    1,
    "The number of cells that run at a time, each on its share of the cores (with --devices, on all cores).",
    lower_bound=1,
)
DEVICES = flags.DEFINE_list("devices", [], "CUDA_VISIBLE_DEVICES of each worker, such as 0,1,2,3.")


def main(argv: list[str]) -> int:
    """Runs the command.

    Args:
      argv: the command line, starting with the program's name.

    Returns:
      The exit code: 0, 1 if a cell failed, or 2 after an error that the user can fix.
    """

    def run() -> int:
        config, folder = cli.parse(argv)
        line = shlex.join(["python", "-m", "experiments.sweep", *argv[1:]])
        return sweep(config, folder, line, jobs=JOBS.value, devices=DEVICES.value)

    return cli.end(run)


def sweep(config: Config, folder: Path, line: str, *, jobs: int, devices: list[str]) -> int:
    """Runs the missing cells of a config, then writes and prints the results; see the module.

    Args:
      config: the configuration.
      folder: the folder of the sweep.
      line: the command, for reports.
      jobs: the number of cells that run at a time.
      devices: CUDA_VISIBLE_DEVICES of each worker; empty to leave it alone.

    Returns:
      The exit code: 0, or 1 if a cell failed.

    Raises:
      UserError: the folder holds something else, the inputs or a result cannot be read, or the disk refuses.
    """
    from vpns_jax.experiment import inputs
    from vpns_jax.experiment.folder_checks import check_folder
    from vpns_jax.experiment.lock import locked
    from vpns_jax.experiment.plan import grid
    from vpns_jax.experiment.workdir import Workdir

    current = inputs.of(config)
    check_folder(folder, config, current)
    with locked(folder):
        # Refuses the folder of another sweep, or of one on other data, because finished runs are not checked again.
        axes = Workdir(folder, config, current).axes
        # The record of tuning and the summary keep the results of earlier calls, too.
        code = _run_all(config, axes[0], folder, line, jobs=jobs, devices=devices)
        gather({cell.name: folder / "runs" / cell.name for cell in grid(*axes)}, folder, line)
    if config.tuning.grids:
        sys.stdout.write(f"chosen on validation: {folder / 'tuning' / 'tuning.json'}\n")
    return code


def _run_all(config: Config, methods: list[str], folder: Path, line: str, *, jobs: int, devices: list[str]) -> int:
    """Chooses hyper-parameters and runs the missing cells, in a locked folder. Returns the exit code.

    The choices of all `methods` are recorded, those of this call and of earlier ones.
    """
    from vpns_jax.experiment import run

    candidates = tuning.candidates(config)
    tried = {
        candidate.name: (tuning.cell_of(config, candidate), folder / "tuning" / candidate.name, line)
        for candidate in candidates
    }
    tuned = run_cells(tried, folder, jobs=jobs, devices=devices)
    every = dataclasses.replace(config, methods=tuple(methods))
    chosen = tuning.choose(every, folder / "tuning") if tried else {}
    not_chosen = {candidate.method for candidate in candidates} - chosen.keys()
    runs = {
        cell.name: (
            one_cell(tuning.with_values(config, chosen.get(cell.method, {})), cell.method, cell.density, cell.seed),
            folder / "runs" / cell.name,
            line,
        )
        for cell in run.cells(config)
        # A method whose values could not be chosen waits for the next call.
        if cell.method not in not_chosen
    }
    code = run_cells(runs, folder, jobs=jobs, devices=devices)
    return tuned or code


def one_cell(config: Config, method: str, density: float, seed: int) -> Config:
    """Reduces a config to one cell.

    Args:
      config: the configuration.
      method: the cell's method.
      density: the cell's density.
      seed: the cell's seed.

    Returns:
      The new configuration.
    """
    return dataclasses.replace(config, methods=(method,), densities=(density,), seeds=(seed,))


def changed(config: Config, changes: dict[str, Any]) -> Config:
    """Changes keys of a config and checks it again.

    Args:
      config: the configuration.
      changes: values by dotted key.

    Returns:
      The new configuration.

    Raises:
      UserError: a value is not allowed.
    """
    from vpns_jax.experiment import config as configs

    tree = config.to_json()
    for path, value in changes.items():
        *groups, key = path.split(".")
        branch = tree
        for group in groups:
            branch = branch[group]
        branch[key] = value
    return configs.parse(tree)


# A run: its config, its folder and the command that made it.
Run = tuple[Config, Path, str]


def run_one(run: Run) -> None:
    """Runs one cell, in a process that may have run others, whose compiled programs are used again.

    Args:
      run: config, folder and command.

    Raises:
      UserError: the cell cannot run.
    """
    from vpns_jax.experiment import run as experiment
    from vpns_jax.parallel import startup

    startup.prepare(fast_compile=run[0].fast_compile)
    experiment.run(*run)


def run_cells(
    runs: dict[str, Run],
    folder: Path,
    *,
    jobs: int,
    devices: list[str],
    work: Callable[[Run], None] = run_one,
) -> int:
    """Runs the cells that have no result yet. If one fails, its traceback is written to FOLDER/failed-NAME.txt.

    Args:
      runs: the runs by name.
      folder: the folder for tracebacks.
      jobs: the number of cells that run at a time.
      devices: CUDA_VISIBLE_DEVICES of each worker; empty to leave it alone.
      work: runs a cell, in another process.

    Returns:
      The exit code: 0, or 1 if a cell failed.

    Raises:
      UserError: the disk refuses a traceback.
    """
    from vpns_jax.files import write_whole

    missing = {name: run for name, run in runs.items() if not (run[1] / "summary.json").exists()}
    # The first cell runs alone: it makes the source network and the compiled programs for the others.
    first = dict(list(missing.items())[:1])
    rest = {name: run for name, run in missing.items() if name not in first}
    failed = 0
    with tqdm(total=len(runs), initial=len(runs) - len(missing), unit="cell", disable=None) as bar:
        for part, count in ((first, 1), (rest, jobs)):
            for outcome in workers.run_all(part, work, workers=count, devices=devices):
                bar.update()
                if outcome.error:
                    failed += 1
                    write_whole(folder / f"failed-{outcome.name}.txt", outcome.error[1])
                    tqdm.write(f"{outcome.name} failed: {outcome.error[0]}", file=sys.stderr)
                else:
                    (folder / f"failed-{outcome.name}.txt").unlink(missing_ok=True)
    if failed:
        sys.stderr.write(
            f"{failed} of {len(runs)} cells failed, {folder}/failed-CELL.txt says how; run again to retry\n"
        )
    return 1 if failed else 0


def gather(homes: dict[str, Path], folder: Path, line: str) -> None:
    """Writes one summary of all finished runs, and its figure, and prints its table.

    Args:
      homes: the folders of the runs, by name.
      folder: the folder of the sweep.
      line: the command, for the summary.

    Raises:
      UserError: a run's summary is damaged, or the disk refuses.
    """
    from vpns_jax.analysis import figures, tables
    from vpns_jax.files import write_sealed

    done = list(finished(homes).values())
    if not done:
        return
    summary: dict[str, Any] = done[0] | {"command": line, "cells": [cell for part in done for cell in part["cells"]]}
    write_sealed(folder / "summary.json", summary)
    figures.sparsity_figure(summary, folder / "sparsity.png")
    sys.stdout.write(f"\n{tables.text_table(summary)}\nsummary: {folder / 'summary.json'}\n")


def finished(homes: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Reads the summaries of the finished runs.

    Args:
      homes: the folders of the runs, by name.

    Returns:
      The summaries, by the names of their runs.

    Raises:
      UserError: a summary is damaged.
    """
    paths = {name: home / "summary.json" for name, home in homes.items()}
    return {name: summaries.read(path) for name, path in paths.items() if path.exists()}


if __name__ == "__main__":
    sys.exit(main(sys.argv))
