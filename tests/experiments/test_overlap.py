"""The overlap command on the folder of a run or a sweep."""

import csv
import json

import numpy as np
import pytest
import safetensors.numpy

from experiments import overlap
from tests.analysis.samples import cell
from vpns_jax.errors import UserError


@pytest.fixture
def run(tmp_path):
    """Makes two methods at 50%: each keeps 4 of 8 weights, 2 of them the same. The dense network is left out."""
    cells = []
    for method, density, kept in (("dense", 1.0, "1" * 8), ("vpns", 0.5, "11110000"), ("hydra", 0.5, "00111100")):
        made = cell(method, density, 7, 0.9, None)
        cells.append(made | {"layers": [{"path": "conv/kernel", "size": 8, "kept": kept.count("1")}]})
        write(tmp_path / "subnetworks" / f"{made['cell']}.task.safetensors", kept)
    (tmp_path / "summary.json").write_text(json.dumps({"cells": cells}))
    return tmp_path


def write(path, kept):
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without a checksum, as earlier versions wrote it.
    mask = {"mask/conv/kernel": np.packbits([int(bit) for bit in kept])}
    safetensors.numpy.save_file(mask, path, metadata={"format": "pt"})
    path.with_name(path.name.replace(".task", "")).touch()


def test_table_and_figure(run, capsys, drawn):
    assert overlap.main(["overlap", f"--workdir={run}"]) == 0
    head, line = csv.reader((run / "overlap.csv").read_text().splitlines())
    assert head == ["masks", "sparsity", "pairs", "overlap %", "by chance %", "by chance in each layer %"]
    assert line == ["vpns and hydra", "50%", "1", "33.3", "33.3", "33.3"]
    assert "vpns and hydra" in capsys.readouterr().out
    assert (run / "overlap.png").read_bytes().startswith(b"\x89PNG")
    square = drawn[0].axes[0].images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(square, [[np.nan, 1 / 3], [1 / 3, np.nan]])


def test_the_runs_of_a_sweep(run):
    for name in ("vpns-s50-seed7", "hydra-s50-seed7"):
        home = run / "runs" / name
        home.mkdir(parents=True)
        (run / "subnetworks" / f"{name}.task.safetensors").rename(home / "task")
        (run / "subnetworks" / f"{name}.safetensors").unlink()
        (home / "subnetworks").mkdir()
        (home / "task").rename(home / "subnetworks" / f"{name}.task.safetensors")
        (home / "subnetworks" / f"{name}.safetensors").touch()
    (comparison,) = overlap.compare(run)
    assert comparison.overlap.jaccard == pytest.approx(1 / 3)


def test_bad_folders_end_in_a_line(run, capsys):
    write(run / "subnetworks" / "hydra-s50-seed7.task.safetensors", "00000001")
    with pytest.raises(UserError, match=r"hydra-s50-seed7\.safetensors: its mask is not the one of .*summary\.json"):
        overlap.compare(run)
    (run / "subnetworks" / "hydra-s50-seed7.task.safetensors").unlink()
    assert overlap.main(["overlap", f"--workdir={run}"]) == 2
    assert capsys.readouterr().err.endswith("hydra-s50-seed7.task.safetensors: no such file\n")
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"cells": summary["cells"][:2]}))
    with pytest.raises(UserError, match="no two masks"):
        overlap.compare(run)
    assert overlap.main(["overlap", "--unheard=of"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([], "names no layers of vpns-s50-seed7"),
        ([{"path": "conv/kernel", "size": 9, "kept": 4}], "masks are compared of the same network"),
    ],
)
def test_layers_that_cannot_be_compared_are_a_line(run, layers, words):
    summary = json.loads((run / "summary.json").read_text())
    summary["cells"][1]["layers"] = layers
    (run / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match=rf"summary\.json.* {words}"):
        overlap.compare(run)
