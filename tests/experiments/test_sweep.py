"""Sweeps: every cell is a run of its own, a failure stops no other cell, and finished cells are not run again."""

import json

import pytest

from configs import quickstart
from experiments import summaries, sweep, workers
from tests import forks
from tests.analysis.samples import cell as sample
from tests.experiments import in_process
from vpns_jax.errors import UserError
from vpns_jax.experiment import config
from vpns_jax.experiment import run as experiment


def parsed(**changes):
    tree = quickstart.get_config().to_dict() | {"methods": ("dense", "vpns", "hydra"), "densities": (0.1, 0.05)}
    return config.parse(tree | changes)


def pretend(run):
    """Replaces a run, which would take minutes; HYDRA's cells at 95% fail until a file says that they are fixed."""
    reduced, folder, line = run
    (cell,) = experiment.cells(reduced)
    if cell.name == "hydra-s95-seed7" and not (folder.parent / "mended").exists():
        raise RuntimeError("out of luck")
    folder.mkdir(parents=True)
    (folder / "runs.txt").write_text("once")
    result = sample(cell.method, cell.density, cell.seed, 0.9, None)
    (folder / "summary.json").write_text(json.dumps({"name": reduced.name, "command": line, "cells": [result]}))


def go(folder):
    runs = {
        cell.name: (sweep.one_cell(parsed(), cell.method, cell.density, cell.seed), folder / "runs" / cell.name, "line")
        for cell in experiment.cells(parsed())
    }
    folder.mkdir(exist_ok=True)
    (folder / "runs").mkdir(exist_ok=True)
    code = sweep.run_cells(runs, folder, jobs=2, devices=[], work=pretend)
    sweep.gather({name: home for name, (_, home, _) in runs.items()}, folder, "the command")
    return code


@pytest.mark.slow
def test_a_broken_cell_is_named_and_done_when_it_can_be(tmp_path, capsys, monkeypatch):
    """The first call has two processes, as a sweep does; that they start anew is what test_workers.py shows."""
    monkeypatch.setattr(workers, "_SPAWN", forks.CONTEXT)
    folder = tmp_path / "sweep"
    assert go(folder) == 1
    err = capsys.readouterr().err
    assert "hydra-s95-seed7 failed: out of luck" in err
    assert "1 of 5 cells failed" in err
    assert "RuntimeError" in (folder / "failed-hydra-s95-seed7.txt").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["command"] == "the command"
    assert {cell["cell"] for cell in summary["cells"]} == {
        "dense-s0-seed7",
        "vpns-s90-seed7",
        "vpns-s95-seed7",
        "hydra-s90-seed7",
    }
    times = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/runs.txt")}

    (folder / "runs" / "mended").write_text("")
    monkeypatch.setattr(workers, "run_all", in_process.run_all)
    assert go(folder) == 0
    assert len(json.loads((folder / "summary.json").read_text())["cells"]) == 5
    assert not (folder / "failed-hydra-s95-seed7.txt").exists()
    # Finished cells were not run again.
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_a_call_with_fewer_cells_loses_none(tmp_path, monkeypatch):
    def run_cells(runs, folder, **_):
        for run in runs.values():
            if not (run[1] / "summary.json").exists():
                pretend(run)
        return 0

    monkeypatch.setattr(sweep, "run_cells", run_cells)
    for methods in (("dense", "vpns"), ("dense",)):
        assert sweep.sweep(parsed(methods=methods), tmp_path / "sweep", "line", jobs=1, devices=[]) == 0
        cells = json.loads((tmp_path / "sweep" / "summary.json").read_text())["cells"]
        assert [cell["cell"] for cell in cells] == ["dense-s0-seed7", "vpns-s90-seed7", "vpns-s95-seed7"]


def test_a_damaged_result_is_named_and_written_anew_once_it_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "run_all", in_process.run_all)
    (tmp_path / "sweep" / "runs").mkdir(parents=True)
    (tmp_path / "sweep" / "runs" / "mended").write_text("")
    assert go(tmp_path / "sweep") == 0
    path = tmp_path / "sweep" / "summary.json"
    path.write_text(path.read_text().replace("0.9", "0.8", 1))
    with pytest.raises(
        UserError, match=r"summary\.json is damaged or was edited.*remove it, and run the command that made it again"
    ):
        summaries.read(path)
    path.unlink()
    assert go(tmp_path / "sweep") == 0
    assert len(summaries.read(path)["cells"]) == 5


def test_the_folder_of_another_sweep_is_refused(tmp_path):
    from vpns_jax.experiment.workdir import Workdir

    Workdir(tmp_path / "sweep", parsed())
    with pytest.raises(UserError, match=r"another config: config\.protocol"):
        sweep.sweep(
            parsed(protocol="paper" if parsed().protocol == "reference" else "reference"),
            tmp_path / "sweep",
            "line",
            jobs=1,
            devices=[],
        )


def test_one_cell_is_a_whole_config():
    reduced = sweep.one_cell(parsed(seeds=(7, 9)), "vpns", 0.05, 9)
    assert [cell.name for cell in experiment.cells(reduced)] == ["vpns-s95-seed9"]
