"""Hyper-parameters: the values that are tried, and that validation alone decides."""

import json

import pytest

from configs import default, quickstart
from experiments import sweep, tuning
from tests.analysis.samples import cell as sample
from vpns_jax.errors import UserError
from vpns_jax.experiment import config
from vpns_jax.experiment import run as experiment

RATES = default.grid("retrain.weights.learning_rate", (0.01, 0.03))
SCORES = default.grid("prune.scores.learning_rate", (1e-4, 1e-3, 1e-2), ("vpns", "hydra"))


def parsed(*grids, **changes):
    tree = quickstart.get_config().to_dict() | {"methods": ("magnitude", "vpns", "hydra")} | changes
    tree["tuning"] |= {"grids": grids, "density": 0.2, "seed": 3}
    return config.parse(tree)


def test_each_method_tries_all_combinations_of_its_grids():
    candidates = tuning.candidates(parsed(RATES, SCORES))
    assert [candidate.name for candidate in candidates[:3]] == ["magnitude-0", "magnitude-1", "vpns-0"]
    assert len(candidates) == 2 + 6 + 6
    assert candidates[3].values == {"retrain.weights.learning_rate": 0.01, "prune.scores.learning_rate": 1e-3}
    tried = tuning.cell_of(parsed(RATES, SCORES), candidates[3])
    assert (tried.retrain.weights.learning_rate, tried.prune.scores.learning_rate) == (0.01, 1e-3)
    # A candidate is an ordinary run, without grids.
    assert tried.tuning.grids == ()
    assert [cell.name for cell in experiment.cells(tried)] == ["vpns-s80-seed3"]


def test_methods_without_a_grid_have_no_candidates():
    assert {candidate.method for candidate in tuning.candidates(parsed(SCORES))} == {"vpns", "hydra"}
    assert tuning.candidates(parsed()) == []


def write(folder, name, val, test):
    """Writes the summary of a candidate."""
    result = sample("vpns", 0.2, 3, 0.0, None)
    result["val"]["best"] |= {"plain": 1.0, "prompted": val}
    result["test"]["best"] = {"plain": 1.0, "prompted": test}
    (folder / name).mkdir(parents=True)
    (folder / name / "summary.json").write_text(json.dumps({"cells": [result]}))


def test_the_best_on_validation_is_chosen_whatever_test_says(tmp_path):
    open_ = parsed(SCORES, methods=("vpns", "hydra"))
    for i, (val, test) in enumerate([(0.5, 0.99), (0.7, 0.1), (0.7, 0.8)]):
        write(tmp_path, f"vpns-{i}", val, test)
    # HYDRA's last candidate has no result.
    write(tmp_path, "hydra-0", 0.9, 0.9)
    write(tmp_path, "hydra-1", 0.9, 0.9)
    assert tuning.choose(open_, tmp_path) == {"vpns": {"prune.scores.learning_rate": 1e-3}}
    written = json.loads((tmp_path / "tuning.json").read_text())
    assert [(entry["val_accuracy"], entry["chosen"]) for entry in written["tried"]] == [
        (0.5, False),
        (0.7, True),
        (0.7, False),
    ]


def test_a_sweep_runs_with_what_was_chosen(tmp_path, monkeypatch):
    def pretend(runs, folder, *, jobs, devices):
        """Finishes every run; the middle rate is best, and HYDRA's candidates fail."""
        for reduced, where, _ in runs.values():
            (cell,) = experiment.cells(reduced)
            if cell.method == "hydra":
                continue
            rate = reduced.prune.scores.learning_rate
            ran.append((where.parent.name, cell.name, rate))
            result = sample(cell.method, cell.density, cell.seed, 0.9 if rate == 1e-3 else 0.8, None)
            where.mkdir(parents=True)
            (where / "summary.json").write_text(json.dumps({"name": "x", "command": "", "cells": [result]}))
        return int(any(not (where / "summary.json").exists() for _, where, _ in runs.values()))

    ran = []
    monkeypatch.setattr(sweep, "run_cells", pretend)
    open_ = parsed(SCORES, methods=("vpns", "hydra"), densities=(0.1,), seeds=(7, 9))
    assert sweep.sweep(open_, tmp_path / "sweep", "line", jobs=1, devices=[]) == 1
    assert [run for run in ran if run[0] == "tuning"] == [
        ("tuning", "vpns-s80-seed3", 1e-4),
        ("tuning", "vpns-s80-seed3", 1e-3),
        ("tuning", "vpns-s80-seed3", 1e-2),
    ]
    assert [run for run in ran if run[0] == "runs"] == [("runs", f"vpns-s90-seed{seed}", 1e-3) for seed in (7, 9)]


def test_what_earlier_calls_tried_stays_on_record(tmp_path, monkeypatch):
    def pretend(runs, folder, *, jobs, devices):
        for reduced, where, _ in runs.values():
            (cell,) = experiment.cells(reduced)
            where.mkdir(parents=True)
            result = sample(cell.method, cell.density, cell.seed, 0.5 + reduced.retrain.weights.learning_rate, None)
            (where / "summary.json").write_text(json.dumps({"name": "x", "command": "", "cells": [result]}))
        return 0

    monkeypatch.setattr(sweep, "run_cells", pretend)
    for method in ("vpns", "hydra"):
        sweep.sweep(parsed(RATES, methods=(method,), densities=(0.1,)), tmp_path / "sweep", "", jobs=1, devices=[])
    written = json.loads((tmp_path / "sweep" / "tuning" / "tuning.json").read_text())
    rate = "retrain.weights.learning_rate"
    assert [(entry["method"], entry["values"][rate], entry["chosen"]) for entry in written["tried"]] == [
        ("vpns", 0.01, False),
        ("vpns", 0.03, True),
        ("hydra", 0.01, False),
        ("hydra", 0.03, True),
    ]
    assert written["chosen"] == {method: {rate: 0.03} for method in ("vpns", "hydra")}


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ((default.grid("retrain.epochs", (1.0,)),), r"a grid over config\.retrain\.epochs: there is no such key"),
        ((default.grid("retrain.weights.rate", (1.0,)),), r"config\.retrain\.weights\.rate: there is no such key"),
        ((default.grid("name.x", (1.0,)),), r"config\.name\.x: there is no such key"),
        ((default.grid("bip.gamma", ()),), r"the grid over bip\.gamma is \(\); it must hold at least one value"),
        ((default.grid("bip.gamma", (1.0, -1.0)),), r"config\.bip\.gamma is -1\.0; it must be above zero"),
        ((default.grid("bip.gamma", (1.0,), ("snip",)),), "unknown method of a grid 'snip'; known: magnitude, vpns"),
        ((SCORES, SCORES), r"config\.tuning\.grids name hydra: prune\.scores\.learning_rate twice"),
    ],
)
def test_grids_that_make_no_sense_are_refused(grids, message):
    with pytest.raises(UserError, match=message):
        parsed(*grids)


def test_a_single_run_leaves_nothing_open(tmp_path):
    with pytest.raises(UserError, match=r"only experiments\.sweep can do"):
        experiment.run(parsed(SCORES), tmp_path / "run", "line")
    assert not (tmp_path / "run").exists()
