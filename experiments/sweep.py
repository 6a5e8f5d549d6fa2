"""Every cell of a config (method x density x seed) as a run of its own, several at a time.

    python -m experiments.sweep --config=configs/digits_sweep.py --workdir=runs/sweep --jobs=2

A cell that fails is named at the end, with its traceback in its folder, and stops no other; run again, the sweep
does what is missing. WORKDIR/runs/ holds the runs, WORKDIR/summary.json all of their results.
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

JOBS = flags.DEFINE_integer("jobs", 1, "How many cells run at a time, each on its share of the cores.", lower_bound=1)
DEVICES = flags.DEFINE_list("devices", [], "CUDA_VISIBLE_DEVICES of each worker, such as 0,1,2,3.")


def main(argv: list[str]) -> int:
    """Returns the exit code: 0, 1 if a cell failed, 2 for something that the caller can mend."""

    def run() -> int:
        config, folder = cli.parse(argv)
        line = shlex.join(["python", "-m", "experiments.sweep", *argv[1:]])
        return sweep(config, folder, line, jobs=JOBS.value, devices=DEVICES.value)

    return cli.end(run)


def sweep(config: Config, folder: Path, line: str, *, jobs: int, devices: list[str]) -> int:
    """Runs what is missing of `config` under `folder`, then writes and prints the results; see the module."""
    from vpns_jax.experiment import inputs
    from vpns_jax.experiment.plan import grid
    from vpns_jax.experiment.workdir import Workdir, check_folder, locked

    found = inputs.of(config)
    check_folder(folder, config, found)
    with locked(folder):
        # Refuses the folder of another sweep, or of one on other data: its finished runs are not looked at again.
        axes = Workdir(folder, config, found).axes
        code = _run_all(config, folder, line, jobs=jobs, devices=devices)
        # Of earlier calls, too: what they have found must not be lost from the summary.
        gather({cell.name: folder / "runs" / cell.name for cell in grid(*axes)}, folder, line)
    if config.tuning.grids:
        sys.stdout.write(f"chosen on validation: {folder / 'tuning' / 'tuning.json'}\n")
    return code


def _run_all(config: Config, folder: Path, line: str, *, jobs: int, devices: list[str]) -> int:
    """Tunes and runs what is missing, in a folder that is this sweep's own. Returns the exit code."""
    from vpns_jax.experiment import run

    tried = {
        one.name: (tuning.cell_of(config, one), folder / "tuning" / one.name, line) for one in tuning.candidates(config)
    }
    tuned = run_cells(tried, folder, jobs=jobs, devices=devices)
    chosen = tuning.choose(config, folder / "tuning") if tried else {}
    open_ = {one.method for one in tuning.candidates(config)} - chosen.keys()
    runs = {
        cell.name: (
            one_cell(tuning.with_values(config, chosen.get(cell.method, {})), cell.method, cell.density, cell.seed),
            folder / "runs" / cell.name,
            line,
        )
        for cell in run.cells(config)
        # One that could not be tuned waits for the next call.
        if cell.method not in open_
    }
    code = run_cells(runs, folder, jobs=jobs, devices=devices)
    return tuned or code


def one_cell(config: Config, method: str, density: float, seed: int) -> Config:
    """`config` reduced to one cell."""
    return dataclasses.replace(config, methods=(method,), densities=(density,), seeds=(seed,))


def changed(config: Config, changes: dict[str, Any]) -> Config:
    """`config` with keys changed, which are named with dots, and checked again."""
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
    """One cell, in a process that may have run others: what they compiled is used again."""
    from vpns_jax.experiment import run as experiment
    from vpns_jax.parallel import startup

    startup.prepare()
    experiment.run(*run)


def run_cells(
    runs: dict[str, Run],
    folder: Path,
    *,
    jobs: int,
    devices: list[str],
    work: Callable[[Run], None] = run_one,
) -> int:
    """Does the runs that have no result yet; FOLDER/failed-NAME.txt tells of those that fail. Returns the exit code."""
    from vpns_jax.files import write_whole

    missing = {name: run for name, run in runs.items() if not (run[1] / "summary.json").exists()}
    # One alone first: it leaves the source network and the compiled programs to the others.
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
    """One summary of all finished runs, its table and its figure; `homes` are the runs' folders."""
    from vpns_jax.analysis import figures, tables
    from vpns_jax.files import write_sealed

    done = list(finished(homes).values())
    if not done:
        return
    summary: dict[str, Any] = done[0] | {"command": line, "cells": [cell for one in done for cell in one["cells"]]}
    write_sealed(folder / "summary.json", summary)
    figures.sparsity_figure(summary, folder / "sparsity.png")
    sys.stdout.write(f"\n{tables.text_table(summary)}\nsummary: {folder / 'summary.json'}\n")


def finished(homes: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """The summaries of the runs that have one, by name; `homes` are the runs' folders."""
    paths = {name: home / "summary.json" for name, home in homes.items()}
    return {name: summaries.read(path) for name, path in paths.items() if path.exists()}


if __name__ == "__main__":
    sys.exit(main(sys.argv))
