"""A finished network from its path alone: all that is needed to run it stands in its files."""

import dataclasses
import errno
import json
import os

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from tests.deploy import finished
from tests.training.tiny import same
from vpns_jax import deploy, files, models, prompting
from vpns_jax.deploy import subnetworks
from vpns_jax.errors import UserError
from vpns_jax.prompting.kinds import KINDS

pytestmark = pytest.mark.usefixtures("small_world")


def refused(path, *words, **arguments):
    with pytest.raises(UserError) as error:
        deploy.load(path, **arguments)
    assert len(str(error.value)) <= 400
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("prompt", KINDS)
def test_all_of_it_comes_back(tmp_path, prompt):
    saved = finished.classifier(prompt)
    deploy.save(tmp_path / "vpns-s99.5-seed7", saved)
    # The dot in the name is no suffix.
    stem = tmp_path / "vpns-s99.5-seed7"
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        f"{stem.name}.safetensors",
        f"{stem.name}.task.safetensors",
    ]
    for path in (stem, str(stem), f"{stem}.safetensors", f"{stem}.task.safetensors"):
        read = deploy.load(path)
        assert read.description == saved.description
        assert same(read.subnetwork, saved.subnetwork)
        assert read.network == saved.network


def test_the_metadata_speaks_timms_language(tmp_path):
    deploy.save(tmp_path / "net", finished.classifier())
    with safetensors.safe_open(tmp_path / "net.task.safetensors", framework="np") as file:
        told = json.loads(file.metadata()["vpns_jax"])
    assert told["architecture"] == "tiny"
    assert told["num_classes"] == 3
    assert told["label_names"] == list(finished.CLASSES)
    assert told["pretrained_cfg"] == {
        "input_size": [3, 8, 8],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "mean": [0.5, 0.25, 0.125],
        "std": [0.25, 0.5, 1.0],
    }
    assert told["origin"]["method"] == "vpns"


def test_timms_name_of_each_network():
    assert models.timm_name("vit_ti16") == "vit_tiny_patch16_224"
    assert models.timm_name("vit_tiny_patch16_224") == "vit_tiny_patch16_224"
    assert models.timm_name("resnet18") == "resnet18"
    # What it is called there is known here.
    assert all(
        models.create(models.timm_name(name)) == models.create(name) for name in models.names() if name != "tiny"
    )


def test_a_file_of_an_older_version_is_read_where_one_says_what_it_is(tmp_path):
    saved = finished.classifier()
    path = tmp_path / "net.safetensors"
    subnetworks.save(path, "tiny", saved.subnetwork)
    refused(path, "older version", "model and options, prompt, image_size, mean, std and classes")
    read = deploy.load(path, saved.description)
    assert same(read.subnetwork, saved.subnetwork)
    deploy.save(path, read)
    assert deploy.load(path).description == saved.description
    # A file that says it is not told.
    refused(path, "says itself", description=saved.description)


def test_a_description_that_does_not_fit_the_arrays(tmp_path):
    saved = finished.classifier()
    path = tmp_path / "net.safetensors"
    subnetworks.save(path, "tiny", saved.subnetwork)
    wider = prompting.create("pad", canvas_size=8, pad_size=2)
    refused(path, "has parameters", description=dataclasses.replace(saved.description, prompt=wider))
    refused(path, "3 target classes, and 2 class names", description=finished.description(classes=("a", "b")))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("prompt", None, "it does not say prompt"),
        ("origin", 3, "origin is 3; it must be of type dict"),
        ("options", {"width": 2}, "unknown option of tiny 'width'"),
        ("options", {"name": 1}, "no option may be called name"),
        ("options", {"num_classes": 3}, "no option may be called num_classes"),
        ("options", {"path": 1}, "no option may be called path"),
        ("options", {"image_size": 1}, "no option may be called image_size"),
        ("options", {"seed": 7}, "no option may be called seed"),
        ("image_size", True, "image_size is True; it must be of type int"),
        ("image_size", 9, "image_size is 9, which does not fit prompt pad"),
        ("image_size", 10**9, "it must lie in 1 ... 8192"),
        ("label_names", ["a", 3, "c"], "it must hold the name of each class"),
        ("label_names", ["a"], "3 target classes, and 1 class names"),
        ("pretrained_cfg", {}, "interpolation is None"),
        ("plain_on_canvas", 1, "it must be of type bool"),
        ("decoding", {"exif": 1}, "the decoding of images is"),
    ],
)
def test_facts_that_cannot_be(tmp_path, key, value, words):
    saved = finished.classifier()
    told = saved.description.to_json()
    if value is None:
        del told[key]
    else:
        told[key] = value
    path = tmp_path / "net.safetensors"
    subnetworks.save(path, "tiny", saved.subnetwork, told)
    refused(path, words)


def test_a_description_whose_options_are_called_as_other_arguments():
    with pytest.raises(UserError, match="no option may be called ignore"):
        finished.description(options={"ignore": ["*"]})


def test_a_mapping_beyond_the_head(tmp_path):
    saved = finished.classifier()
    arrays = saved.subnetwork.replace(mapping=np.asarray([4, 5, 2], np.int32))
    deploy.save(tmp_path / "net", deploy.Classifier(saved.description, arrays))
    refused(tmp_path / "net", "the mapping does not fit the 5 classes of the head")


def test_files_that_are_not_there(tmp_path):
    refused(tmp_path / "net", "net.task.safetensors: no such file")
    deploy.save(tmp_path / "net", finished.classifier())
    (tmp_path / "net.safetensors").unlink()
    refused(tmp_path / "net", "net.safetensors: no such file")


def test_a_network_without_a_mask_comes_back(tmp_path):
    """As `Subnetwork.masked` gives it: its zeros are in its weights."""
    saved = finished.classifier()
    dense = dataclasses.replace(saved, subnetwork=saved.subnetwork.masked())
    deploy.save(tmp_path / "net", dense)
    assert same(deploy.load(tmp_path / "net").subnetwork, dense.subnetwork)
    # Files of versions without a description always have one.
    tensors = {"mapping": np.zeros(3, np.int32)}
    (tmp_path / "net.task.safetensors").write_bytes(safetensors.numpy.save(tensors, {"format": "pt"}))
    with pytest.raises(UserError, match="holds no mask or no mapping"):
        subnetworks.load(tmp_path / "net.safetensors", "tiny", image_size=8)


@pytest.mark.parametrize("path", ["net.packed.safetensors", "net.packed"])
def test_a_pair_is_not_called_as_a_packed_file(tmp_path, path):
    with pytest.raises(UserError, match=r"net\.packed\.safetensors is the name of a packed network"):
        deploy.save(tmp_path / path, finished.classifier())
    assert not list(tmp_path.glob("net*"))


@pytest.mark.parametrize("path", [".", "/", ""])
def test_paths_without_a_name(path):
    refused(path, "names no file")
    with pytest.raises(UserError, match="names no file"):
        deploy.save(path, finished.classifier())


@pytest.mark.parametrize("key", ["task", "network"])
def test_a_header_that_lacks_a_checksum_is_damaged(tmp_path, key):
    """As one can write it who means harm: the header's own checksum is right."""
    deploy.save(tmp_path / "net", finished.classifier())
    task = tmp_path / "net.task.safetensors"
    with safetensors.safe_open(task, framework="np") as file:
        header = json.loads(file.metadata()["vpns_jax"])
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    del header[key], header["about"]
    metadata = {"vpns_jax": json.dumps(header | {"about": files.digest_json(header)})}
    task.write_bytes(safetensors.numpy.save(tensors, metadata))
    refused(tmp_path / "net", "net.task.safetensors is damaged")


def test_nothing_stays_of_a_pair_that_the_disk_refuses(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(files, "write_whole", full)
    with pytest.raises(UserError, match="No space left"):
        deploy.save(tmp_path / "net", finished.classifier())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
