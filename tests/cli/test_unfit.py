"""Networks, data and folders that cannot do what is asked: refused in one line, before anything is written."""

import numpy as np
import pytest
from PIL import Image

from tests.cli.program import assert_refused, parsed
from vpns_jax.experiment import pretraining

# ml_collections loads config files in a way that is deprecated in Python.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.mark.slow
def test_weights_that_do_not_fit_are_listed_whole_on_demand(call, tmp_path):
    np.savez(tmp_path / "w.npz", **{f"deep{i}.weight": np.ones(3, np.float32) for i in range(100)})
    chosen = ("--config.data.name=digits", "--config.model.name=resnet18")
    weights = (*chosen, f"--config.model.weights={tmp_path / 'w.npz'}")
    assert_refused(call(*weights), "w.npz does not fit resnet18", "100 missing", "100 not used", "--verbose lists all")
    code, err = call(*weights, "--verbose")
    lines = err.splitlines()
    assert code == 2
    assert len(lines[0]) <= 400
    assert "  deep99.weight is not used" in lines
    assert len(lines) == 1 + 100 + 100


@pytest.mark.slow
def test_more_target_than_source_classes(call, tmp_path):
    mapped = ("--config.data.name=digits", "--config.mapping.kind=frequency", "--config.model.options.num_classes=5")
    assert_refused(call(*mapped), "num_classes")
    for name in "abcdefghijkl":
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(9):
            Image.new("L", (8, 8), 20 * i).save(tmp_path / "images" / name / f"{i}.png")
    folder = (
        "--config.pretrain.data=digits",
        f"--config.data.name=folder:{tmp_path / 'images'}",
        "--config.mapping.kind=frequency",
    )
    assert_refused(call(*folder), "12 target classes", "10")
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_prepared_says_what_to_do(call, tmp_path):
    missing = ("--config.data.name=cifar10", f"--config.data.directory={tmp_path / 'none'}")
    assert_refused(call(*missing), "python -m vpns_jax.data prepare cifar10")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("model.name=vgg16", "prompt.canvas_size=16", "data.image_size=16"), ("16x16", "too small", "32")),
        (("model.prune_include=('head',)", "mapping.kind=head"), ("no kernel is left", "head")),
        (("granularity=2:4", "densities=(0.5,)"), ("conv1/kernel", "3 inputs are no multiple of 4", "exclude")),
        (("granularity=2:4", "densities=(0.4,)", "model.prune_exclude=('conv1',)"), ("2:4 has density 0.5", "0.4")),
        (("granularity=block:4x4",), ("conv1/kernel", "blocks are for dense layers")),
        (("granularity=channel", "target=macs:1e-5"), ("macs:1e-05 cannot be reached", "one channel left in each")),
        (("granularity=channel", "densities=(0.001,)"), ("density 0.001 keeps", "layers would be empty")),
        (("budget=matched", "methods=('imp',)"), ("'matched'", "rounds of imp", "prune.epochs")),
    ],
)
def test_a_network_that_cannot_do_what_is_asked(call, tmp_path, changes, words):
    assert_refused(call(*(f"--config.{change}" for change in changes)), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_vit_cannot_run_plain_images_at_their_own_size(call):
    base = (
        "--config=configs/vit_imagenet.py:ti",
        "--config.data.name=digits",
        "--config.data.batch_size=64",
        "--config.data.image_size=16",
        "--config.prompt.canvas_size=32",
        "--config.prompt.pad_size=4",
        "--config.protocol=reference",
    )
    assert_refused(call(base=base), "image_size is 16", "vit_ti16", "protocol paper")


def test_a_cache_that_cannot_be_written(call, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VPNS_JAX_CACHE", str(tmp_path / "file" / "cache"))
    assert_refused(call(), "cannot be written", "VPNS_JAX_CACHE")


def test_too_few_images_for_every_split(call, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (8, 8), 40 * i).save(tmp_path / "images" / name / f"{i}.png")
    few = (f"--config.data.name=folder:{tmp_path / 'images'}",)
    assert_refused(call(*few), "no validation images", "2 to train on")


def test_a_finished_cell_that_was_damaged(call, tmp_path):
    from vpns_jax.experiment import workdir

    with pytest.MonkeyPatch.context() as patch:
        config, _ = parsed(patch)
    folder = workdir.Workdir(tmp_path / "run", config)
    folder.write_cell("dense-s0-seed7", {"method": "dense", "cell": "dense-s0-seed7", "test": 0.5})
    path = folder.cell("dense-s0-seed7")
    path.write_text(path.read_text().replace("0.5", "0.9"))
    assert_refused(call(), "dense-s0-seed7.json", "remove it")


def test_a_workdir_that_cannot_be_written(call, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert_refused(call(workdir=tmp_path / "file" / "run"), "--workdir", "cannot be written")


def test_a_folder_with_other_things_is_left_alone(call, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.txt").write_text("years of work")
    assert_refused(call(workdir=folder), "neither empty nor a run's folder")
    assert [path.name for path in folder.iterdir()] == ["chapter1.txt"]


def test_a_damaged_source_network_in_the_cache(call, monkeypatch, tmp_path):
    path = tmp_path / "source.npz"
    path.write_bytes(b"PK\x03\x04 no more")
    monkeypatch.setattr(pretraining, "cache_path", lambda config: path)
    assert_refused(call(), str(path), "damaged", "remove it")
