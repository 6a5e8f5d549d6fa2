"""`python -m vpns_jax predict`: what it prints of good files, and the one line about bad ones."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.deploy import finished
from vpns_jax import commands, deploy
from vpns_jax.commands.gathering import Gathered
from vpns_jax.deploy import subnetworks

COMMAND = "predict"
pytestmark = pytest.mark.usefixtures("small_world")


@pytest.fixture
def network():
    classifier = finished.classifier(classes=("a", "b", "c"))
    deploy.save("net", classifier)
    return classifier


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def folder(tmp_path, network):
    """Nine images, three in each class's folder, whatever the network thinks of them; and the right answer."""
    pictures = finished.images(9, 12)
    for number, image in enumerate(pictures):
        write(tmp_path / "images" / "abc"[number % 3] / f"{number}.png", image)
    return [(f"images/{'abc'[i % 3]}/{i}.png", network.predict(pictures[i])) for i in range(9)]


@pytest.mark.slow
def test_a_table(call, folder):
    code, out, _ = call("net.safetensors", "images")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["image", "label", "class", "probability"]
    rows = {line[0]: line[1:] for line in lines[3:12]}
    for path, answer in folder:
        assert rows[path] == [path[7], answer.names[0], f"{100 * answer.probabilities.max():.1f}"]
    right = sum(path[7] == answer.names[0] for path, answer in folder)
    assert f"accuracy {100 * right / 9:.1f}% of 9 images" in out
    assert "most frequent class gives 33.3%" in out


def test_json_and_csv_say_the_same(call, folder):
    _, out, _ = call("net", "images", "--json", "--top-k=2")
    told = json.loads(out)
    assert told["prompted"] is True
    assert told["classes"] == ["a", "b", "c"]
    answers = dict(folder)
    for image in told["images"]:
        [expected] = answers[image["path"]].top(2)
        assert [entry["class"] for entry in image["top"]] == [name for name, _ in expected]
        assert [entry["probability"] for entry in image["top"]] == pytest.approx([p for _, p in expected], abs=1e-6)
        assert image["label"] == image["path"][7]
    counts = np.asarray(told["scores"]["confusion"])
    assert counts.sum(axis=1).tolist() == [3, 3, 3]
    assert told["scores"]["accuracy"] == pytest.approx(np.trace(counts) / 9)
    assert told["scores"]["recall"]["b"] == pytest.approx(counts[1, 1] / 3)
    _, out, err = call("net", "images", "--csv", "--top-k=2")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["class_1"] for row in rows] == [image["top"][0]["class"] for image in told["images"]]
    assert [row["label"] for row in rows] == [image["label"] for image in told["images"]]
    assert "accuracy" in err


def test_files_alone_have_no_label(call, folder):
    code, out, err = call("net", *(path for path, _ in folder[:2]), "--plain")
    assert code == 0
    assert "label" not in out
    assert "accuracy" not in out
    assert "2 images in" in err


def test_what_cannot_be_read_is_named_and_skipped(call, folder, tmp_path):
    (tmp_path / "images" / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    (tmp_path / "images" / "a" / "notes.txt").write_text("no image")
    write(tmp_path / "images" / "other" / "x.png", finished.images(1, 5)[0])
    code, out, err = call("net", "images", "--json")
    assert code == 0
    told = json.loads(out)
    assert [entry["path"] for entry in told["skipped"]] == ["images/a/broken.jpg"]
    assert len(told["images"]) == 10
    assert told["scores"]["images"] == 9
    assert "skipped images/a/broken.jpg" in err
    assert "\n10 images in" in err
    assert "1 images are in folders that are called like no class" in err
    assert "notes.txt" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "arguments are required: NETWORK, IMAGES_OR_FOLDER"),
        (("net",), "arguments are required: IMAGES_OR_FOLDER"),
        (("net", "images", "--json", "--csv"), "not allowed with"),
        (("net", "images", "--top-k=0"), "--top-k is 0; it must be at least 1"),
        (("net", "images", "--batch-size=0"), "--batch-size is 0"),
        (("net", "images", "--tpo-k=3"), "unrecognized arguments: --tpo-k=3"),
        (("net", "nowhere"), "'nowhere': there is no such file or folder"),
        (("net", "empty"), "'empty' has no image in it"),
        (("net", "broken.png"), "none of the 1 images can be read"),
        (("nothing", "images"), "nothing.task.safetensors: no such file"),
        (("broken.png", "images"), "no such file"),
        ((".", "images"), "'.' names no file"),
        (("", "images"), "NETWORK is empty"),
        (("~nobody-of-that-name/net", "images"), "there is no such user"),
    ],
)
def test_mistakes_are_one_line(call, folder, tmp_path, arguments, words):
    (tmp_path / "empty" / "below").mkdir(parents=True)
    (tmp_path / "broken.png").write_bytes(b"no image")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err) <= 408
    assert words in err
    assert sorted(tmp_path.rglob("*")) == before


def test_all_that_does_not_fit_is_listed_on_demand(call, folder, monkeypatch):
    tensors = {"a": np.zeros(1), "b": np.zeros(1)}
    monkeypatch.setattr(subnetworks.models, "export", lambda *_: tensors)
    deploy.save("other", finished.classifier())
    code, _, err = call("other", "images")
    assert (code, err.count("\n")) == (2, 1)
    assert "--verbose lists all" in err
    code, _, listed = call("other", "images", "--verbose")
    assert code == 2
    assert listed.startswith(err)
    assert {"  a is not used", "  b is not used"} <= set(listed.splitlines())
    # It is of one call alone.
    assert call("other", "images")[2] == err


def test_names_of_folders_are_escaped_once():
    gathered = Gathered((Path("a"),), ("\\xff",), ())
    assert "called like no class, and not counted as right or wrong: \\xff; the classes are cat, \\xfe" in (
        gathered.unknown_folders(("cat", "\\xfe"))
    )


def test_many_classes_fit_no_matrix():
    from vpns_jax.analysis.confusion import Confusion
    from vpns_jax.commands import scores

    names = [f"class{i}" for i in range(40)]
    text = scores.as_text(Confusion.of([(3, 4), (3, 4), (7, 7)], 40), names)
    assert "label\\predicted" not in text
    # No heading here has a second line.
    assert "\n\n---" not in text.split("most frequent mistakes")[1]
    assert "class3" in text
    assert "accuracy 33.3% of 3 images, mean per-class accuracy 50.0%" in text
    # Classes without an image are not listed.
    assert "class20" not in text


def test_unknown_commands_and_help(capsys):
    assert commands.main(["prdict"]) == 2
    assert capsys.readouterr().err == "error: unknown command 'prdict'; known: run, predict, shrink, export, data\n"
    assert commands.main([]) == commands.main(["--help"]) == 0
    assert "predict" in capsys.readouterr().out
