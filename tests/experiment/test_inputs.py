"""A run refuses changed inputs, and allows changes that change no number."""

import json
import shutil
from pathlib import Path

import jax
import pytest
from PIL import Image

from configs import quickstart
from tests.analysis.test_report import read
from tests.experiment import small
from tests.training import tiny
from vpns_jax import files, models
from vpns_jax.analysis.confusion import Confusion
from vpns_jax.deploy import subnetworks
from vpns_jax.errors import UserError
from vpns_jax.experiment import config, run

pytestmark = pytest.mark.slow

BOTH = ("hydra", "random")


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch, request):
    with small.world(tmp_path, monkeypatch, figures="drawn" in request.fixturenames):
        yield


def half_a_run(folder, data, **changes):
    """Makes "first", a run of one cell, and from it "half", which has begun a second cell."""
    with pytest.MonkeyPatch.context() as patch, small.world(folder, patch, figures=False):
        if "model__weights" in changes:
            weights(changes["model__weights"], 0)
        small.go(folder / "first", data, **changes)
        shutil.copytree(folder / "first", folder / "half")
        # Both epochs of the first cell are logged; the second cell is stopped in retraining.
        small.stop_after(patch, "retrain", 2)
        with pytest.raises(small.Stop):
            small.go(folder / "half", data, methods=BOTH, **changes)
    assert [path.name for path in (folder / "half" / "cells").iterdir()] == ["hydra-s50-seed7.json"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with runs, see `half_a_run`, and the "images" on which they ran."""
    folder = tmp_path_factory.mktemp("made")
    half_a_run(folder, small.images(folder / "images"))
    return folder


@pytest.fixture(scope="module")
def of_weights(tmp_path_factory, made):
    """Such runs from weights in a file, in the folder "net"."""
    folder = tmp_path_factory.mktemp("of_weights")
    path = folder / "net" / "w.safetensors"
    path.parent.mkdir()
    half_a_run(folder, f"folder:{made / 'images'}", model__weights=str(path))
    return folder


def refused(workdir, *words, data, **changes):
    with pytest.raises(UserError) as error:
        small.go(workdir, data, **changes)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) <= 400
    for word in words:
        assert word in text


def swap_classes(images):
    for split in ("train", "val", "test"):
        (images / split / "0").rename(images / split / "away")
        (images / split / "1").rename(images / split / "0")
        (images / split / "away").rename(images / split / "1")


def other_pixels(images):
    path = images / "train" / "0" / "0.png"
    Image.new("RGB", (tiny.SIZE, tiny.SIZE), (9, 9, 9)).save(path)


def one_less(images):
    (images / "val" / "2" / "2.png").unlink()


@pytest.mark.parametrize("change", [swap_classes, other_pixels, one_less])
def test_other_data_are_refused_in_the_middle_of_a_run(tmp_path, made, change):
    images, run = made / "images", tmp_path / "run"
    shutil.copytree(made / "half", run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    data = f"folder:{images}"
    shutil.copytree(images, tmp_path / "images")
    try:
        change(images)
        refused(run, f"its data {data!r} changed since it began", data=data, methods=BOTH)
        # Also a finished run, because its summary would name other data than its own.
        refused(run, "changed since it began", data=data)
    finally:
        shutil.rmtree(images)
        shutil.copytree(tmp_path / "images", images)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_other_data_under_another_name_are_refused(tmp_path, made):
    shutil.copytree(made / "first", tmp_path / "run")
    data, other = f"folder:{made / 'images'}", small.images(tmp_path / "other")
    one_less(tmp_path / "other")
    refused(tmp_path / "run", f"its data was {data!r}, and {other!r} holds something else", data=other)


def weights(path, seed):
    models.save_safetensors(path, models.export("tiny", tiny.variables(seed)))


def test_weights_that_were_overwritten_are_refused_and_a_copy_elsewhere_is_not(tmp_path, made, of_weights):
    shutil.copytree(of_weights / "half", tmp_path / "run")
    data, path = f"folder:{made / 'images'}", of_weights / "net" / "w.safetensors"
    given = path.read_bytes()
    try:
        weights(path, 1)
        refused(
            tmp_path / "run",
            *("its weights", "changed since it began"),
            data=data,
            model__weights=str(path),
            methods=BOTH,
        )
    finally:
        path.write_bytes(given)
    weights(tmp_path / "copy.safetensors", 0)
    summary = small.go(tmp_path / "run", data, model__weights=str(tmp_path / "copy.safetensors"), methods=BOTH)
    assert len(summary["cells"]) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}),
        ("preprocessor_config.json", {"image_mean": [0.1] * 3, "image_std": [0.2] * 3}),
    ],
)
def test_another_normalization_beside_the_weights_is_refused(tmp_path, made, of_weights, name, content):
    shutil.copytree(of_weights / "first", tmp_path / "run")
    data, path = f"folder:{made / 'images'}", of_weights / "net" / "w.safetensors"
    (path.parent / name).write_text(json.dumps(content))
    try:
        refused(tmp_path / "run", "its weights", "changed since it began", data=data, model__weights=str(path))
    finally:
        (path.parent / name).unlink()
    # Without it, the run is what it was.
    assert len(small.go(tmp_path / "run", data, model__weights=str(path))["cells"]) == 1


def test_another_source_network_is_refused(tmp_path, made):
    """After the cache is emptied, another machine, which rounds differently, trains the source network again."""
    from vpns_jax.experiment import pretraining

    data = f"folder:{made / 'images'}"
    shutil.copytree(made / "half", tmp_path / "run")
    exported = (tmp_path / "run" / "subnetworks" / "source.safetensors").read_bytes()
    path = pretraining.cache_path(small.parsed(data))
    pretraining.save(path, jax.device_get(tiny.variables(1)), 0.5)
    refused(tmp_path / "run", "its source network 'tiny' changed", data=data, methods=BOTH)
    assert (tmp_path / "run" / "subnetworks" / "source.safetensors").read_bytes() == exported


def test_another_mask_is_refused(tmp_path, made):
    data = f"folder:{made / 'images'}"
    shutil.copytree(made / "first", tmp_path / "from")
    small.go(tmp_path / "from", data, seeds=(7, 8))
    masks = [tmp_path / "from" / "subnetworks" / f"hydra-s50-seed{seed}.safetensors" for seed in (7, 8)]
    given = {"data": data, "methods": ("transfer",)}
    small.go(tmp_path / "run", transfer__mask=str(masks[0]), **given)
    refused(
        tmp_path / "run", "its mask was", "seed8.safetensors' holds something", transfer__mask=str(masks[1]), **given
    )
    # A method without a given mask accepts any mask, and none.
    small.go(tmp_path / "run", data, transfer__mask="")


def test_what_changes_no_number_stops_no_run(tmp_path, made):
    """Workers, places, mesh and checkpoint intervals may change; the results are the same bit for bit."""
    small.go(tmp_path / "unbroken", f"folder:{made / 'images'}", methods=BOTH)
    shutil.copytree(made / "half", tmp_path / "run")
    shutil.copytree(made / "images", tmp_path / "moved")
    changes = {"data__workers": 2, "checkpoint_every_epochs": 7, "checkpoint_every_steps": 9, "mesh__data": 8}
    summary = small.go(tmp_path / "run", f"folder:{tmp_path / 'moved'}", methods=BOTH, name="another", **changes)
    expected = json.loads((tmp_path / "unbroken" / "summary.json").read_text())
    assert [cell["test"] for cell in summary["cells"]] == [cell["test"] for cell in expected["cells"]]
    for name in ("hydra-s50-seed7", "random-s50-seed7"):
        nets = [(tmp_path / run / "subnetworks" / f"{name}.safetensors").read_bytes() for run in ("run", "unbroken")]
        assert nets[0] == nets[1]


def test_methods_densities_and_seeds_are_added_to_what_is_there(tmp_path, made):
    data = f"folder:{made / 'images'}"
    shutil.copytree(made / "first", tmp_path / "run")
    path = tmp_path / "run" / "cells" / "hydra-s50-seed7.json"
    before = path.read_bytes()
    summary = small.go(tmp_path / "run", data, methods=("random",), densities=(0.25,), seeds=(8,))
    # All cells that were run here are listed, and the first was not run again.
    assert [cell["cell"] for cell in summary["cells"]] == ["hydra-s50-seed7", "random-s75-seed8"]
    assert path.read_bytes() == before
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["methods"], config["densities"], config["seeds"]) == (["hydra", "random"], [0.5, 0.25], [7, 8])
    # Keys that no method has read here may change; keys that a method has read may not.
    small.go(tmp_path / "run", data, imp__drop=0.7, methods=("random",))
    small.go(tmp_path / "run", data, imp__epochs=1, imp__drop=0.7, methods=("imp",))
    refused(tmp_path / "run", "config.imp.drop is 0.7 there and 0.6 here", data=data, imp__drop=0.6, methods=("hydra",))
    more = {"imp__drop": 0.7, "imp__epochs": 1, "retrain__epochs": 3}
    refused(tmp_path / "run", "config.retrain.epochs is 2 there and 3 here", data=data, **more)


def test_a_run_of_an_older_version_is_refused(tmp_path):
    """`older_run` is a run of a version without digests, killed in its first cell."""
    shutil.copytree(Path(__file__).parent / "older_run", tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    changes = {
        "name": "quickstart",
        "methods": ("hydra",),
        "densities": (0.5,),
        "checkpoint_every_epochs": 1,
        "model.options.width": 0.02,
        "pretrain.epochs": 1,
        "prune.epochs": 2,
        "retrain.epochs": 2,
    }
    tree = quickstart.get_config()
    tree.update_from_flattened_dict(changes)
    with pytest.raises(UserError) as caught:
        run.run(config.parse(tree.to_dict()), tmp_path / "run", "the command")
    assert "has no inputs.json: it holds a run of an older version" in str(caught.value)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_an_exported_network_tells_what_it_is_made_from(made):
    about = subnetworks.about(made / "first" / "subnetworks" / "hydra-s50-seed7.safetensors")
    inputs = json.loads((made / "first" / "inputs.json").read_text())
    assert about["model"] == "tiny"
    origin = about["origin"]
    assert origin["cell"] == "hydra-s50-seed7"
    assert set(origin["inputs"]) == {"data", "pretraining data", "source network"}
    assert all(inputs[what]["digest"] == digest for what, digest in origin["inputs"].items())


def test_a_checkpoint_of_other_inputs_is_refused(tmp_path, made):
    """The checkpoint itself names its inputs, whatever the other files of the folder say."""
    small.images(tmp_path / "images2")
    one_less(tmp_path / "images2")
    small.go(tmp_path / "other", f"folder:{tmp_path / 'images2'}")
    # A half-finished cell on one data set, in a folder that names the other.
    cell = "random-s50-seed7"
    shutil.copytree(made / "half" / "checkpoints" / cell, tmp_path / "other" / "checkpoints" / cell)
    shutil.copy(made / "half" / "metrics.jsonl", tmp_path / "other" / "metrics.jsonl")
    refused(
        tmp_path / "other",
        "was made by another config, or on other inputs",
        data=f"folder:{tmp_path / 'images2'}",
        methods=("random",),
    )


def test_a_run_counts_by_class_and_goes_on_where_an_older_version_did_not(tmp_path, made, capsys, drawn):
    data, run = f"folder:{made / 'images'}", tmp_path / "run"
    shutil.copytree(made / "first", run)
    picture, result = run / "figures" / "hydra-s50-seed7-confusion.png", run / "cells" / "hydra-s50-seed7.json"
    assert picture.exists()
    picture.unlink()
    before = files.read_sealed(result, "")
    keys = {"confusion", "mean_class_accuracy", "majority_class"}
    files.write_sealed(result, {key: value for key, value in before.items() if key not in keys})
    capsys.readouterr()
    older, newer = small.go(run, data, methods=BOTH)["cells"]
    assert not older.keys() & keys
    confusion = Confusion.from_json(newer["confusion"]["plain"])
    assert newer["confusion"]["prompted"] is None
    assert confusion.images.tolist() == [tiny.IMAGES // tiny.CLASSES] * tiny.CLASSES
    assert confusion.accuracy == pytest.approx(newer["test"]["best"]["plain"])
    assert drawn
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
