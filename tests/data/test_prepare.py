"""The command that prepares data sets: from folders and archives, and what it says."""

import io
import json
import os

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds

from tests.data.shades import encode, shades
from vpns_jax import data
from vpns_jax.data import prepare


def matlab_structs(rows: list[tuple[str, int]]) -> np.ndarray:
    return np.array(rows, dtype=[("fname", object), ("class", object)])


def stanford_cars_folder(root) -> None:
    """A folder like the unpacked archives; image k of the training split has class and shade k % 196."""
    (root / "devkit").mkdir(parents=True)
    classes = np.array([f"Car {k} 2012" for k in range(196)], object)
    scipy.io.savemat(root / "devkit" / "cars_meta.mat", {"class_names": classes})
    for split, path, count in (
        ("cars_train", root / "devkit" / "cars_train_annos.mat", 392),
        ("cars_test", root / "cars_test_annos_withlabels.mat", 196),
    ):
        (root / split).mkdir()
        rows = [(f"{k:05}.jpg", k % 196 + 1) for k in range(count)]
        scipy.io.savemat(path, {"annotations": matlab_structs(rows)})
        for k in range(count):
            (root / split / f"{k:05}.jpg").write_bytes(encode(k % 196, (30, 20), kind="JPEG"))


def test_stanford_cars_from_a_manual_folder(tmp_path, capsys):
    command = ["prepare", "stanford_cars", f"--data_dir={tmp_path}"]
    assert prepare.main(command) == 2
    assert f"missing: {tmp_path}/downloads/manual/stanford_cars (a folder with cars_train/" in capsys.readouterr().err

    command.append(f"--manual_dir={tmp_path / 'mine'}")
    stanford_cars_folder(tmp_path / "mine" / "stanford_cars")
    assert prepare.main(command) == 0
    sources = data.open_sources("stanford_cars", data_dir=str(tmp_path))
    assert sources.classes[195] == "Car 195 2012"
    np.testing.assert_array_equal(np.bincount(sources.train.labels), [1] * 196)
    np.testing.assert_allclose(shades(sources.test), sources.test.labels, atol=1)
    np.testing.assert_allclose(shades(sources.train), sources.train.labels, atol=1)


def test_stanford_cars_with_something_missing(tmp_path, capsys):
    root = tmp_path / "downloads" / "manual" / "stanford_cars"
    stanford_cars_folder(root)
    (root / "cars_test" / "00007.jpg").unlink()
    command = ["prepare", "stanford_cars", f"--data_dir={tmp_path}"]
    assert prepare.main(command) == 2
    assert "names 00007.jpg, but there is no such image below" in capsys.readouterr().err
    (root / "devkit" / "cars_meta.mat").unlink()
    assert prepare.main(command) == 2
    assert "there is no cars_meta.mat in" in capsys.readouterr().err


def test_food101_is_prepared_by_its_builder_without_tensorflow(tmp_path, monkeypatch, capsys):
    """TFDS's own builder, with an unpacked archive in place of its download."""
    root = tmp_path / "unpacked" / "food-101"
    (root / "meta").mkdir(parents=True)
    for split, count in (("train", 4), ("test", 2)):
        listed = {name: [f"{name}/{split}{k}" for k in range(count)] for name in ("apple_pie", "waffles")}
        (root / "meta" / f"{split}.json").write_text(json.dumps(listed))
        for path in (path for paths in listed.values() for path in paths):
            (root / "images" / path).parent.mkdir(parents=True, exist_ok=True)
            (root / "images" / f"{path}.jpg").write_bytes(encode(200, (50, 40), kind="JPEG"))
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", lambda *_: str(root.parent))
    assert prepare.main(["prepare", "food101", f"--data_dir={tmp_path}"]) == 0
    assert "101 classes, 8 images to train on, 4 to test on" in capsys.readouterr().out
    sources = data.open_sources("food101", data_dir=str(tmp_path), val_fraction=0.25)
    assert sorted(sources.classes[label] for label in sources.test.labels) == ["apple_pie"] * 2 + ["waffles"] * 2
    assert sources.test[0][0].shape == (40, 50, 3)
    assert len(sources.val) == 2


def test_preparing_without_tensorflow_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert prepare.main(["prepare", "cifar10", f"--data_dir={tmp_path}"]) == 2
    assert "pip install 'vpns_jax[prepare]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_list_and_prepare_of_bundled_sets_and_folders(tmp_path, monkeypatch, capsys):
    assert prepare.main(["list"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == list(data.names())
    assert "4.7 GiB from data.vision.ee.ethz.ch" in out
    assert prepare.main(["prepare", "digits"]) == 0
    assert "digits is ready: 10 classes" in capsys.readouterr().out

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for k in range(5):
            (tmp_path / "images" / name / f"{k}.png").write_bytes(encode(k))
    (tmp_path / "images" / "cat" / "bad.png").write_bytes(b"")
    (tmp_path / "images" / "dog" / ".hidden.png").touch()
    assert prepare.main(["prepare", f"folder:{tmp_path / 'images'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["class    train     test", "cat          4        1", "dog          4        1"]
    assert lines[3] == "skipped 1 hidden and system files and folders: dog/.hidden.png"
    assert lines[4].startswith("10 files have the bytes of a file with another label: cat/0.png = dog/0.png, ")
    assert lines[-2].endswith("2 classes, 8 images to train on, 2 to test on, 1 unreadable files left out:")
    assert lines[-1] == "  cat/bad.png: the file is empty"
    assert prepare.main(["prepare", "mnist"]) == 2
    assert "unknown data set 'mnist'; known: digits, fonts62" in capsys.readouterr().err


def test_a_terminal_that_lacks_the_letters_of_a_name_gets_them_escaped(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for k, name in enumerate(("犬", os.fsdecode(b"caf\xe9"))):
        (tmp_path / "images" / name).mkdir(parents=True)
        for j in range(3):
            (tmp_path / "images" / name / f"{j}.png").write_bytes(encode(10 * k + j))
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, "ascii", write_through=True))
    assert prepare.main(["prepare", f"folder:{tmp_path / 'images'}"]) == 0
    table = written.getvalue().decode("ascii").splitlines()
    assert [line.split()[0] for line in table[:3]] == ["class", "caf\\xe9", "\\u72ac"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ("command", "prepare NAME")),
        (["prepare"], ("name", "prepare NAME")),
        (["prepar", "digits"], ("'prepar'", "list")),
        (["prepare", "digits", "--folder=x"], ("--folder=x",)),
        (["prepare", "folder:~nosuchuser/x"], ("~nosuchuser", "no such user")),
        (["prepare", "folder:"], ("folder is empty",)),
        (["prepare", "cifar10", "--data_dir=~nosuchuser"], ("--data_dir", "no such user")),
        (["prepare", "cifar10", "--manual_dir="], ("--manual_dir is empty",)),
        (["prepare", "x" * 10**5], ("unknown data set", "digits")),
        (["prepare", "folder:" + "x" * 10**5], ("255 bytes",)),
    ],
)
def test_usage_errors_are_one_line(arguments, words, capsys):
    assert prepare.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err) < 420
    for word in words:
        assert word in err
