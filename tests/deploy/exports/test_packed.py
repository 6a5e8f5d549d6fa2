"""Masked networks small on disk: the same bits come back, and what does not fit is refused."""

import dataclasses
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from tests.deploy import families, finished
from tests.experiment import small
from tests.training.tiny import same
from vpns_jax import deploy, files, models, prompting
from vpns_jax.deploy.exports import packed
from vpns_jax.errors import UserError
from vpns_jax.training.network import Subnetwork
from vpns_jax.trees import flatten

DOCS = Path(__file__).parents[3] / "docs" / "your_own.md"


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch):
    families.register(monkeypatch)
    with small.world(tmp_path, monkeypatch):
        yield


def pack(classifier, path, dtype="float32"):
    """Without the comparison of answers, which has a test of its own."""
    return packed.write(classifier, path, dtype=dtype)


@pytest.mark.slow
def test_the_bytes_of_a_network_with_a_twentieth_of_its_weights(tmp_path):
    model = models.create("vit_ti16", num_classes=10)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), shapes["params"])
    mask = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32) < 0.05, models.prunable(weights))
    prompt = prompting.create("pad", canvas_size=224, pad_size=16)
    facts = {"model": "vit_ti16", "image_size": 224, "classes": tuple(map(str, range(10)))}
    description = dataclasses.replace(finished.description(), prompt=prompt, **facts)
    mapping = jnp.arange(10, dtype=jnp.int32)
    classifier = deploy.Classifier(
        description, Subnetwork(weights=weights, mask=mask, batch_stats={}, prompt=prompt.init(), mapping=mapping)
    )
    dense = deploy.size_of(classifier).bytes
    pack(classifier, tmp_path / "network")
    assert (tmp_path / "network").stat().st_size <= 0.09 * dense


@pytest.mark.parametrize(
    ("dtype", "least", "most"), [("float32", 0, 0), ("float16", 1e-6, 0.02), ("bfloat16", 1e-4, 0.1)]
)
def test_what_a_narrow_dtype_costs_is_told(tmp_path, dtype, least, most):
    classifier = finished.classifier()
    exported = deploy.export(classifier, tmp_path / "net.packed.safetensors", format="packed", dtype=dtype)
    assert least <= exported.difference.largest <= most
    read = deploy.load(tmp_path / "net.packed.safetensors").subnetwork
    rounded = flatten(classifier.subnetwork.weights)["conv1/kernel"].astype(packed.DTYPES[dtype])
    np.testing.assert_array_equal(read.weights["conv1"]["kernel"], rounded.astype(np.float32))
    # What no mask is for is not rounded.
    assert same(read.weights["head"], classifier.subnetwork.weights["head"])


def test_a_weight_beyond_float16(tmp_path):
    classifier = finished.classifier()
    classifier.subnetwork.weights["conv1"]["kernel"] *= 1e6
    with pytest.raises(UserError, match="too large for float16; take bfloat16 or float32"):
        deploy.export(classifier, tmp_path / "net.packed.safetensors", format="packed", dtype="float16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (np.nan, "float32", "of conv1/kernel have values that are not finite"),
        (np.inf, "float16", "of conv1/kernel have values that are not finite"),
        (3.4e38, "bfloat16", "3.4e+38, which is too large for bfloat16; take float32"),
        (3.4e38, "float16", "3.4e+38, which is too large for float16; take float32"),
    ],
)
def test_weights_that_no_dtype_or_only_a_wider_one_holds(tmp_path, value, dtype, words):
    classifier = finished.classifier()
    kernel = np.array(classifier.subnetwork.weights["conv1"]["kernel"])
    kernel[np.asarray(classifier.subnetwork.mask["conv1"]["kernel"])] = value
    classifier.subnetwork.weights["conv1"]["kernel"] = kernel
    with pytest.raises(UserError) as error:
        pack(classifier, tmp_path / "net.packed.safetensors", dtype)
    assert str(error.value).endswith(words)


def test_the_reader_of_the_docs(tmp_path):
    """Ten lines of NumPy, which know nothing of this library, in a process that has not imported it."""
    [code] = re.findall(r"```python\n([^`]*zlib[^`]*)```", DOCS.read_text())
    assert "vpns_jax." not in code
    classifier = finished.classifier()
    pack(classifier, tmp_path / "network.packed.safetensors", "bfloat16")
    code += 'np.savez("read.npz", **variables)\nprint(json.dumps(about["label_names"]))\n'
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert not ended.stderr
    expected = flatten(deploy.load(tmp_path / "network.packed").subnetwork.weights)
    with np.load(tmp_path / "read.npz") as variables:
        assert set(variables) == {f"params/{name}" for name in expected} | {
            f"batch_stats/bn1/{leaf}" for leaf in ("mean", "var")
        }
        for name, leaf in expected.items():
            np.testing.assert_array_equal(variables[f"params/{name}"], leaf)
    assert json.loads(ended.stdout) == list(finished.CLASSES)


def changed(path, tensors=None, **told):
    """Changes what a file holds, and makes its checksum right, as one can who means harm."""
    with safetensors.safe_open(path, framework="np") as file:
        about = json.loads(file.metadata()["vpns_jax"]) | told
        content = {name: file.get_tensor(name) for name in list(file.keys())} | (tensors or {})
    content = {name: tensor for name, tensor in content.items() if tensor is not None}
    about.pop("checksum")
    about["checksum"] = f"{files.digest_json(about)} {files.digest_arrays(sorted(content.items()))}"
    path.write_bytes(safetensors.numpy.save(content, {"vpns_jax": json.dumps(about)}))


BOMB = np.frombuffer(zlib.compress(bytes(10**6)), np.uint8)
KERNEL = "conv1/kernel"


@pytest.mark.parametrize(
    ("tensors", "told", "words"),
    [
        ({}, {"model": "alexnet"}, "unknown model 'alexnet'"),
        ({}, {"options": {"width": 2}}, "unknown option of tiny 'width'"),
        ({}, {"label_names": ["a"]}, "3 target classes, and 1 class names"),
        ({}, {"shapes": 3}, "not of the same layers"),
        ({}, {"shapes": {KERNEL: [48]}}, "not of the same layers"),
        ({"extra": np.zeros(3)}, {}, "it has a tensor 'extra'"),
        ({"mapping": None}, {}, "no head, or no mapping"),
        ({"mapping": np.asarray([0, 1, 5], np.int32)}, {}, "does not fit the 5 classes"),
        ({"whole/params/head/bias": None}, {}, "no head, or no mapping"),
        ({"whole/params/head/bias": np.zeros(10**7, np.float32)}, {}, "float32 [4, 10000000] in the network"),
        ({"whole/params/head/kernel": np.zeros((4, 5))}, {}, "is float64 [4, 5] in it, and float32 [4, 5]"),
        ({"whole/params/head/kernel": np.full((4, 5), np.nan, np.float32)}, {}, "not finite"),
        ({"whole/batch_stats/bn1/var": None}, {}, "'batch_stats/bn1/var' is missing in it"),
        ({f"mask/{KERNEL}": None}, {}, "not of the same layers"),
        ({f"mask/{KERNEL}": BOMB}, {}, "does not fit the network"),
        ({f"mask/{KERNEL}": BOMB[:8]}, {}, "does not fit the network"),
        ({f"mask/{KERNEL}": np.zeros(6, np.uint8)}, {}, "cannot be read"),
        ({"mask/conv9/kernel": BOMB}, {}, "mask of 'conv9/kernel' does not fit"),
        ({f"kept/{KERNEL}": np.zeros(5, np.float32)}, {}, "do not fit its mask"),
        ({f"kept/{KERNEL}": np.zeros(24, np.int8)}, {}, "do not fit its mask"),
        ({f"kept/{KERNEL}": np.full(24, np.inf, np.float32)}, {}, "not finite"),
        ({"prompt/border": None, "prompt/other": np.zeros(3, np.float32)}, {}, "has parameters"),
    ],
)
def test_files_that_do_not_fit(tmp_path, tensors, told, words):
    path = tmp_path / "net.packed.safetensors"
    pack(finished.classifier(), path)
    changed(path, tensors, **told)
    refused(path, words)


def refused(path, words, **arguments):
    with pytest.raises(UserError) as error:
        deploy.load(path, **arguments)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 400


def test_damaged_files(tmp_path):
    path = tmp_path / "net.packed.safetensors"
    refused(path, "no such file")
    pack(finished.classifier(), path)
    content = path.read_bytes()
    refused(path, "says itself what it is", description=finished.description())
    for damaged, words in (
        (content[:100], "truncated or damaged?"),
        (content[:-1], "truncated or damaged?"),
        (b"", "truncated or damaged?"),
        (b"<html>", "is a web page"),
        (content[:-1] + bytes([content[-1] ^ 1]), "it does not match its checksum"),
    ):
        path.write_bytes(damaged)
        refused(path, words)
    for metadata in (None, {}, {"vpns_jax": "[]"}, {"vpns_jax": "{"}, {"vpns_jax": "[" * 10**5}, {"vpns_jax": "3"}):
        path.write_bytes(safetensors.numpy.save({"a": np.zeros(3)}, metadata))
        refused(path, "no packed network")
