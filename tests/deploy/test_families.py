"""A network of every family: shrunk, and written in the formats, with the same logits.

One file, so that its tests share the programs that compute the logits.
"""

import functools
from collections import Counter

import numpy as np
import onnxruntime
import pytest

from tests.deploy import families
from tests.training.tiny import same
from vpns_jax import deploy
from vpns_jax.deploy import verifying
from vpns_jax.deploy.exports import onnx_model, packed
from vpns_jax.trees import flatten

pytestmark = pytest.mark.usefixtures("small_families")


@functools.cache
def classifier(name):
    return families.classifier(name)


@functools.cache
def shrunk(name):
    return deploy.shrink(classifier(name))


@functools.cache
def logits(name, prompted=True):
    """On the images on which exports are compared, so that those share the program, too."""
    made = classifier(name) if prompted else classifier(name).without_prompt()
    return verifying.logits(made, verifying.images(made))


def assert_close(answers, expected):
    np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-5 * expected.std())


@pytest.mark.slow
@pytest.mark.parametrize("name", families.SMALL)
def test_the_logits_of_a_shrunk_network_are_equal(name):
    before, after = classifier(name), shrunk(name)
    assert deploy.size_of(after).channels < deploy.size_of(before).channels
    assert_close(verifying.logits(after, verifying.images(after)), logits(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small_basic"])
def test_the_logits_of_a_shrunk_network_are_equal_without_its_prompt(name):
    """Whatever the family, the prompt ends before the network begins."""
    after = shrunk(name).without_prompt()
    expected = logits(name, prompted=False)
    assert_close(verifying.logits(after, verifying.images(after)), expected)
    assert not np.allclose(expected, logits(name))


def run(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


def assert_computes(model, images, expected):
    """In a batch and alone."""
    assert_close(run(model, images), expected)
    np.testing.assert_allclose(run(model, images[1:2]), expected[1:2], rtol=0, atol=1e-5 * expected.std())


@pytest.mark.slow
@pytest.mark.parametrize("name", families.SMALL)
def test_onnx_dense_and_shrunk(name):
    images, expected = verifying.images(classifier(name)), logits(name)
    dense = onnx_model.build(classifier(name))
    assert_computes(dense, images, expected)
    operations = Counter(node.op_type for node in dense.graph.node)
    assert operations["Conv"] == sum(leaf.ndim == 4 for leaf in flatten(classifier(name).subnetwork.weights).values())
    assert not operations["BatchNormalization"]
    small = onnx_model.build(shrunk(name))
    assert_computes(small, images, expected)
    assert small.ByteSize() < 0.8 * dense.ByteSize()


# JAX exports any network in the same way; these have all kinds of layers.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["small_basic", "small_vgg_bn", "small_vit", "small_convnext"])
def test_stablehlo_shrunk_and_prompted(tmp_path, name):
    exported = deploy.export(shrunk(name), tmp_path / "a.stablehlo", format="stablehlo", platforms="cpu")
    assert exported.difference.largest <= 1e-5
    assert exported.difference.agreement == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", families.SMALL)
def test_packed_bit_for_bit(tmp_path, name):
    for turn, made in enumerate((classifier(name), shrunk(name))):
        path = tmp_path / f"net{turn}.packed.safetensors"
        # Without the comparison of answers, which has a test of its own.
        packed.write(made, path, dtype="float32")
        for where in (path, str(path).removesuffix(".safetensors")):
            read = deploy.load(where)
            assert read.description == made.description
            assert same(read.subnetwork, made.subnetwork)
