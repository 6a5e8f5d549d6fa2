"""Ablations: the variants of a config, what is refused before anything runs, and the final table."""

import csv
import json

import pytest

from configs import default, quickstart
from experiments import ablation, sweep, workers
from tests.analysis.samples import cell as sample
from tests.experiments import in_process
from vpns_jax.errors import UserError
from vpns_jax.experiment import config
from vpns_jax.experiment import run as experiment

# By variant: how many points VPNs gains over the unchanged config, with seeds 7 and 9.
GAINS = {"raw": (0, 0), "sigmoid": (1, 3), "tanh": (-2, 2)}


def parsed(made=quickstart, **changes):
    tree = made.get_config().to_dict()
    for group in ("prompt", "data"):
        tree[group] |= changes.pop(group, {})
    return config.parse(tree | changes)


def test_kinds_of_one_area():
    configs = ablation.variants("prompt_kind", parsed())
    assert list(configs) == ["pad (configured)", "expand", "corner", "random"]
    assert (configs["expand"].data.image_size, configs["expand"].prompt.pad_size) == (24, 4)
    # 32^2 - 24^2 = 448 pixels: a square of 21.
    assert {configs[kind].prompt.patch_size for kind in ("corner", "random")} == {21}
    smaller = config.parse(configs["expand"].to_json())
    assert ablation.variants("prompt_kind", smaller)["pad"].data.image_size == 32


def test_the_papers_sizes():
    pads = ablation.variants("prompt_size", parsed(default))
    assert [variant.prompt.pad_size for variant in pads.values()] == [16, 32, 48, 64, 80, 96, 112]
    assert "16px (configured)" in pads
    squares = ablation.variants("prompt_size", parsed(default, prompt={"kind": "corner"}))
    assert [variant.prompt.patch_size for variant in squares.values()] == [115, 156, 183, 202, 214, 221, 224]
    # The quickstart's 4 px is not one of them.
    assert next(iter(ablation.variants("prompt_size", parsed()))) == "configured"


def test_sizes_that_do_not_fit_are_left_out():
    def pads(kind, canvas_size):
        made = parsed(prompt={"kind": kind, "canvas_size": canvas_size}, data={"image_size": canvas_size - 8})
        return [variant.prompt.pad_size for variant in ablation.variants("prompt_size", made).values()]

    # The quickstart's 4 px comes first. Around an image, half of the canvas is no frame.
    assert pads("expand", 32) == [4, 2, 5, 7, 9, 11, 14]
    # Half of 35 px is rounded up, to 18.
    assert pads("pad", 35) == [4, 2, 5, 8, 10, 12, 15]


def test_other_studies_vary_one_key():
    for study, key in (("stage", "prompt.stage"), ("mapping", "mapping.kind"), ("protocol", "protocol")):
        for name, variant in ablation.variants(study, parsed()).items():
            assert variant == sweep.changed(parsed(), {key: name.removesuffix(" (configured)")})
    # The frame already uses raw.
    assert list(ablation.variants("parametrization", parsed())) == ["raw (configured)", "sigmoid", "tanh"]


def test_what_a_config_cannot_serve_is_one_line_and_leaves_nothing(tmp_path):
    def refused(study, match, **changes):
        with pytest.raises(UserError, match=match):
            ablation.ablate(parsed(**changes), tmp_path / "out", "line", study=study, jobs=1, devices=[], check=picky)
        assert not (tmp_path / "out").exists()

    refused("stage", "variant prune: .*where magnitude.prompt learns nothing", methods=("vpns", "magnitude+prompt"))
    refused("stage", "changes nothing for dense, hydra, snip.posthoc", methods=("dense", "hydra", "snip+posthoc"))
    refused("prompt_size", "prompt.kind is 'none'", prompt={"kind": "none"})
    refused("protocol", "^--study=protocol, variant reference: of no use$")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    monkeypatch.setattr(workers, "run_all", in_process.run_all)


def picky(config):
    """Replaces the check of data and weights with which a run begins."""
    if config.protocol == "reference":
        raise UserError("of no use")


def pretend(run):
    """Replaces a run, which would take minutes."""
    reduced, folder, line = run
    (cell,) = experiment.cells(reduced)
    folder.mkdir(parents=True)
    gain = GAINS[reduced.make_prompt().parametrization][(7, 9).index(cell.seed)] / 100
    result = sample(cell.method, cell.density, cell.seed, 0.5, 0.8 + gain)
    (folder / "summary.json").write_text(json.dumps({"command": line, "cells": [result]}))


def test_the_table_and_a_second_study_in_the_same_folder(tmp_path, capsys):
    base, folder = parsed(methods=("hydra", "vpns"), densities=(0.1,), seeds=(7, 9)), tmp_path / "ablation"

    def go(study):
        assert ablation.ablate(base, folder, "a", study=study, jobs=1, devices=[], check=picky, work=pretend) == 0
        return list(csv.reader((folder / f"{study}.csv").read_text().splitlines()))

    # Differences of 1 and 3, and of -2 and 2; Student's t with one degree of freedom at 97.5% is 12.71.
    expected = [
        ["method", "sparsity", "seeds", "test accuracy %", "points over configured", "95% interval", "verdict"],
        ["vpns, raw (configured)", "90%", "2", "80.0 ± 0.0", "", "", ""],
        ["vpns, sigmoid", "90%", "2", "82.0 ± 1.4", "+2.00", "-10.71 to +14.71", "ties"],
        ["vpns, tanh", "90%", "2", "80.0 ± 2.8", "+0.00", "-25.41 to +25.41", "ties"],
    ]
    assert go("parametrization") == expected
    assert "| vpns, tanh | 90% |" in capsys.readouterr().out
    # Finished runs are not run again; otherwise `pretend` would fail to make their folders.
    assert go("parametrization") == expected
    assert len(go("stage")) == 4
    runs = {str(path.parent.relative_to(folder / "runs")) for path in folder.glob("runs/*/*/summary.json")}
    homes = ("configured", "parametrization-sigmoid", "parametrization-tanh", "stage-prune", "stage-retrain")
    assert runs == {f"{home}/vpns-s90-seed{seed}" for home in homes for seed in (7, 9)}
