"""Accuracy by class, from a run to its report, also beside cells that an older version finished."""

import pytest

from tests.analysis.test_report import read
from tests.experiment import small
from tests.training import tiny
from vpns_jax import files
from vpns_jax.analysis.confusion import Confusion

KEYS = ("confusion", "mean_class_accuracy", "majority_class")


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch):
    with small.world(tmp_path, monkeypatch):
        yield


@pytest.mark.slow
def test_a_run_counts_and_goes_on_where_an_older_version_did_not(tmp_path, capsys):
    data, run = small.images(tmp_path / "images"), tmp_path / "run"
    small.go(run, data)
    picture, result = run / "figures" / "hydra-s50-seed7-confusion.png", run / "cells" / "hydra-s50-seed7.json"
    assert picture.exists()
    picture.unlink()
    before = files.read_sealed(result, "")
    files.write_sealed(result, {key: value for key, value in before.items() if key not in KEYS})
    capsys.readouterr()
    older, newer = small.go(run, data, methods=("hydra", "random"))["cells"]
    assert not older.keys() & {*KEYS}
    confusion = Confusion.from_json(newer["confusion"]["plain"])
    assert newer["confusion"]["prompted"] is None
    assert confusion.images.tolist() == [tiny.IMAGES // tiny.CLASSES] * tiny.CLASSES
    assert confusion.accuracy == pytest.approx(newer["test"]["best"]["plain"])
    _, page = read(run / "report.html")
    printed = capsys.readouterr().out
    for line in (
        "Always answering 0, the most frequent class of the test images, is right for 33.3% of them.",
        f"python -m vpns_jax predict {run}/subnetworks/",
    ):
        assert line in "|".join(page.text)
        assert line in printed
    assert "Which classes are taken for which: random-s50-seed7" in page.text
    assert "Which classes are taken for which: hydra-s50-seed7" not in page.text
