"""Weights alone, in torchvision's layout and as timm's folder, by the names of those libraries."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors

from tests.deploy import families
from vpns_jax import deploy, models
from vpns_jax.deploy.exports import state_dict, timm_folder
from vpns_jax.errors import UserError
from vpns_jax.models import formats, registry
from vpns_jax.trees import flatten


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    families.register(monkeypatch)
    # As if timm had such a ViT.
    for alias in ("vit_small_of_timm", "small_vit"):
        monkeypatch.setitem(registry.ALIASES, alias, "small_vit")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def plain(name, prompt="none", image_size=families.SIDE, **options):
    """Without a prompt, for images of the network's own size."""
    made = families.classifier(name, prompt=prompt, image_size=image_size)
    description = dataclasses.replace(made.description, options=dict(made.description.options) | options)
    return dataclasses.replace(made, description=description)


def expected(classifier):
    """The variables, with a row of the head for each class."""
    subnetwork = classifier.subnetwork
    leaves = flatten({"params": subnetwork.weights, "batch_stats": subnetwork.batch_stats})
    rows = np.asarray(subnetwork.mapping)
    return {path: np.asarray(leaf)[..., rows] if "/head/" in path else leaf for path, leaf in leaves.items()}


def read(classifier, path):
    description = classifier.description
    variables = models.load_pretrained(
        description.model, path, num_classes=3, image_size=description.input_size, **description.options
    )
    return flatten(variables)


@pytest.mark.slow
@pytest.mark.parametrize("name", families.SMALL)
def test_weights_of_every_family_in_torchvisions_layout(tmp_path, name):
    classifier = deploy.shrink(plain(name))
    path = tmp_path / "weights.safetensors"
    state_dict.write(classifier, path)
    leaves = read(classifier, path)
    wanted = expected(classifier)
    assert leaves.keys() == wanted.keys()
    for name, leaf in wanted.items():
        np.testing.assert_array_equal(leaves[name], leaf)
    with safetensors.safe_open(path, framework="np") as file:
        assert json.loads(file.metadata()["vpns_jax"])["label_names"] == list(families.CLASSES)


# Of each family some tensors as timm names and shapes them, in the networks that `families` cuts small.
TIMM_TENSORS = {
    "small_bottleneck": {
        "conv1.weight": [4, 3, 7, 7],
        "layer1.0.conv2.weight": [4, 4, 3, 3],
        "layer2.0.downsample.1.running_var": [32],
        "fc.weight": [3, 32],
    },
    "small_vgg": {
        "features.0.weight": [8, 3, 3, 3],
        "pre_logits.fc1.weight": [256, 16, 7, 7],
        "pre_logits.fc2.weight": [256, 256, 1, 1],
        "head.fc.bias": [3],
    },
    "small_convnext": {
        "stem.0.weight": [16, 3, 4, 4],
        "stages.1.downsample.1.weight": [32, 16, 2, 2],
        "stages.1.blocks.0.conv_dw.weight": [32, 1, 7, 7],
        "stages.1.blocks.0.gamma": [32],
        "head.fc.weight": [3, 32],
    },
    "small_vit": {
        "cls_token": [1, 1, 128],
        "pos_embed": [1, 5, 128],
        "patch_embed.proj.weight": [128, 3, 8, 8],
        "blocks.1.attn.qkv.weight": [384, 128],
        "blocks.1.mlp.fc2.weight": [128, 512],
        "head.weight": [3, 128],
    },
}


@pytest.mark.parametrize("name", TIMM_TENSORS)
def test_a_folder_for_timm(tmp_path, name):
    classifier = plain(name)
    folder = tmp_path / "folder"
    timm_folder.write(classifier, folder)
    tensors = formats.read(folder / "model.safetensors")
    assert {key: list(tensors[key].shape) for key in TIMM_TENSORS[name]} == TIMM_TENSORS[name]
    leaves = read(classifier, folder / "model.safetensors")
    for path, leaf in expected(classifier).items():
        np.testing.assert_array_equal(leaves[path], leaf)
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == {"small_vit": "vit_small_of_timm"}.get(name, name)
    assert config["num_classes"] == 3
    assert config["label_names"] == list(families.CLASSES)
    assert config["pretrained_cfg"]["input_size"] == [3, 16, 16]
    assert config["pretrained_cfg"]["mean"] == [0.5, 0.4, 0.3]
    arguments = {"small_vit": {"img_size": 16}, "small_convnext": {"dims": [16, 32]}}
    assert config.get("model_args") == arguments.get(name)
    # timm's own networks have the usual widths, or take others.
    assert (folder / "shapes.txt").exists() == (name in ("small_bottleneck", "small_vgg"))


def test_the_shapes_of_a_shrunk_network(tmp_path):
    """What `timm.models.adapt_model_from_string` takes: of every layer whose width it sets."""
    classifier = deploy.shrink(plain("small_basic"), round_to=2)
    timm_folder.write(classifier, tmp_path / "folder")
    text = (tmp_path / "folder" / "shapes.txt").read_text()
    shapes = {name: json.loads(shape) for name, _, shape in (part.partition(":") for part in text.split("***"))}
    tensors = formats.read(tmp_path / "folder" / "model.safetensors")
    assert shapes == {name: list(tensor.shape) for name, tensor in tensors.items() if tensor.ndim}
    assert shapes["layer1.0.conv1.weight"][0] == dict(classifier.description.options["widths"])["layer1_0/conv1"]


def test_answers_are_compared(tmp_path, monkeypatch):
    """Through the layout that differs most from ours, and not if weights were exchanged."""
    classifier = plain("small_vgg_bn")
    exported = deploy.export(classifier, tmp_path / "folder", format="timm")
    assert exported.difference.largest <= 1e-6
    assert exported.bytes == sum(file.stat().st_size for file in (tmp_path / "folder").iterdir())
    other = state_dict.state_dict(plain("small_vgg_bn"))
    monkeypatch.setattr(
        state_dict, "state_dict", lambda *_: other | {"classifier.6.bias": other["classifier.6.bias"][::-1]}
    )
    with pytest.raises(UserError, match="does not answer as the network does"):
        deploy.export(classifier, tmp_path / "other.safetensors", format="safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("format", "classifier", "words"),
    [
        ("safetensors", lambda: families.classifier("small_basic"), "leave it off with --plain"),
        ("timm", lambda: families.classifier("small_basic"), "leave it off with --plain"),
        ("timm", lambda: plain("small_stem"), "timm has no small_stem with a small stem"),
        ("timm", lambda: deploy.shrink(plain("small_vit")), "whose layers have widths of their own"),
        ("timm", lambda: deploy.shrink(plain("small_convnext")), "whose layers have widths of their own"),
        ("timm", lambda: plain("small_basic", image_size=8), "images of 8 px on a canvas of 16 px"),
    ],
)
def test_what_a_format_cannot_hold(tmp_path, format, classifier, words):
    with pytest.raises(UserError) as error:
        deploy.export(classifier(), tmp_path / "a.safetensors", format=format)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 400
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "cut", "options"), [("resnet10", {}, families.NARROW), ("vit_ti32", {"depth": 1, "patch": 8}, {})]
)
def test_networks_that_timm_lacks(tmp_path, monkeypatch, name, cut, options):
    monkeypatch.setitem(registry.ENTRIES, name, families.cut(name, **cut))
    monkeypatch.setitem(families.SMALL, name, (registry.ENTRIES[name], options))
    with pytest.raises(UserError, match=f"timm has no {name}: take format onnx or stablehlo"):
        deploy.export(plain(name), tmp_path / "a", format="timm")
    assert not list(tmp_path.iterdir())
