"""Finished networks as ONNX files: ONNX Runtime computes the logits that JAX computes."""

import dataclasses
import importlib.util
import json
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from tests.deploy import families
from vpns_jax import deploy, prompting
from vpns_jax.deploy import verifying
from vpns_jax.deploy.exports import backbones, onnx_file, onnx_model
from vpns_jax.errors import UserError
from vpns_jax.models.vit import ViT
from vpns_jax.training.network import predict
from vpns_jax.trees import flatten, unflatten

pytestmark = pytest.mark.usefixtures("small_families")


def logits(classifier, prompted=True):
    """On the images on which exports are compared, so that those share the program, too."""
    source = predict(classifier.network, classifier.subnetwork, verifying.images(classifier), prompted=prompted)
    return np.asarray(source)[:, np.asarray(classifier.subnetwork.mapping)]


def run(model, images, output="logits"):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([output], {"images": images})[0]


def assert_computes(model, classifier, expected):
    """In a batch and alone."""
    images, tolerance = verifying.images(classifier), 1e-5 * expected.std()
    np.testing.assert_allclose(run(model, images), expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(run(model, images[1:2]), expected[1:2], rtol=0, atol=tolerance)


def operations(model):
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize(
    ("name", "layer", "operation", "fewer"),
    [
        ("small_basic", "layer2_0/conv2", "Conv", 2),
        ("small_bottleneck", "layer2_0/conv3", "Conv", 3),
        ("small_vit", "block_1/attention/out", "Softmax", 1),
        ("small_vit", "block_1/mlp/fc2", "Erf", 1),
    ],
)
def test_a_branch_that_was_removed_leaves_its_constant(name, layer, operation, fewer):
    classifier = families.classifier(name)
    mask = flatten(classifier.subnetwork.mask)
    mask[f"{layer}/kernel"] = jnp.zeros_like(mask[f"{layer}/kernel"])
    subnetwork = dataclasses.replace(classifier.subnetwork, mask=unflatten(mask))
    classifier = dataclasses.replace(classifier, subnetwork=subnetwork)
    small = deploy.shrink(classifier)
    model = onnx_model.build(small)
    assert_computes(model, small, logits(classifier))
    assert operations(model)[operation] == operations(onnx_model.build(classifier))[operation] - fewer


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "expand"])
def test_images_smaller_than_the_canvas(kind):
    classifier = families.classifier("small_vit", prompt=kind)
    assert classifier.description.image_size < families.SIDE
    assert_computes(onnx_model.build(classifier), classifier, logits(classifier, classifier.description.prompted))


def test_an_image_without_prompt_and_canvas():
    classifier = families.classifier("small_vit", prompt="none", plain_on_canvas=False, image_size=families.SIDE)
    prompt = prompting.create("none", canvas_size=2 * families.SIDE)
    classifier = deploy.Classifier(dataclasses.replace(classifier.description, prompt=prompt), classifier.subnetwork)
    assert_computes(onnx_model.build(classifier), classifier, logits(classifier, prompted=False))


@pytest.mark.slow
def test_a_file_holds_probabilities_names_and_the_description(tmp_path):
    classifier = families.classifier("small_vit", origin={"seed": 7})
    exported = deploy.export(classifier, tmp_path / "small.onnx", format="onnx")
    assert exported.difference.largest <= 1e-5
    model = onnx.load(tmp_path / "small.onnx")
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["classes"]) == ["cat", "dog", "日本"]
    assert deploy.Description.from_json(json.loads(metadata["vpns_jax"])) == classifier.description
    probabilities = run(model, verifying.images(classifier), "probabilities")
    np.testing.assert_allclose(probabilities, jax.nn.softmax(logits(classifier)), rtol=0, atol=1e-5)


def test_a_file_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    build = onnx_model.build
    other = families.classifier("small_vit", mean=(0.51, 0.4, 0.3))
    monkeypatch.setattr(onnx_model, "build", lambda classifier: build(other))
    with pytest.raises(UserError, match="the onnx file does not answer as the network does"):
        deploy.export(families.classifier("small_vit"), tmp_path / "small.onnx", format="onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_in_bfloat16_is_written_in_float32(tmp_path):
    classifier = families.classifier("small_vit")
    rounded = dataclasses.replace(classifier.description, options={"dtype": "bfloat16"})
    held = onnx_file.write(deploy.Classifier(rounded, classifier.subnetwork), tmp_path / "small.onnx")
    assert held.network == classifier.network
    assert_computes(onnx.load(tmp_path / "small.onnx"), classifier, logits(classifier))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_packages_the_extra_is_named(package, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(UserError, match=rf"format onnx needs {package}: pip install 'vpns_jax\[deploy\]'"):
        onnx_file.write(families.classifier("small_vit"), tmp_path / "small.onnx")


def test_what_a_file_cannot_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "MOST_BYTES", 10_000)
    with pytest.raises(UserError, match=r"an ONNX file holds at most .* export it as stablehlo"):
        onnx_file.write(families.classifier("small_vit"), tmp_path / "small.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_of_another_family_is_refused(tmp_path, monkeypatch):
    monkeypatch.delitem(backbones.FAMILIES, ViT)
    with pytest.raises(UserError, match="ONNX is written for ConvNeXt, ResNet, VGG; this network is a ViT"):
        onnx_file.write(families.classifier("small_vit"), tmp_path / "small.onnx")
