"""Networks with golden weights, exported: the files answer what independent PyTorch implementations answered."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import onnxruntime
import pytest

from tests.golden import recipe
from vpns_jax import deploy, models, prompting
from vpns_jax.deploy.exports import onnx_model, packed, stablehlo
from vpns_jax.training.network import Subnetwork
from vpns_jax.trees import flatten, unflatten

pytestmark = pytest.mark.slow

GOLDEN = Path(recipe.__file__).parent
CASES = json.loads((GOLDEN / "logits.json").read_text())


def classifier(name, case, folder):
    """A dense classifier of all source classes, without a prompt."""
    facts, size = CASES[case], int(case.split("@")[1])
    path = folder / "weights.safetensors"
    shapes = facts["state_dict"].items()
    models.save_safetensors(path, {key: recipe.torch_tensor(key, tuple(shape)) for key, shape in shapes})
    variables = models.load_pretrained(name, path)
    prompt = prompting.create("none", canvas_size=size)
    classes = tuple(map(str, range(1000)))
    description = deploy.Description(
        model=name, prompt=prompt, image_size=size, mean=tuple(facts["mean"]), std=tuple(facts["std"]), classes=classes
    )
    subnetwork = Subnetwork(
        weights=variables["params"],
        mask={},
        batch_stats=variables.get("batch_stats", {}),
        prompt={},
        mapping=np.arange(1000, dtype=np.int32),
    )
    return deploy.Classifier(description, subnetwork)


def without_half_of_the_channels(classifier, rng):
    """Every other unit that may be pruned, at random: its column of every kernel is masked, biases stay."""
    weights = flatten(classifier.subnetwork.weights)
    kernels = models.prunable(classifier.subnetwork.weights, exclude=["head"])
    mask = {path: np.ones(leaf.shape, bool) for path, leaf in flatten(kernels).items()}
    for channels in models.channels(classifier.network.model):
        if not channels.fixed:
            units = rng.random(weights[channels.name].shape[-1] // channels.width) < 0.5
            for path in channels.kernels:
                mask[path][..., np.repeat(units, channels.width)] = False
    subnetwork = dataclasses.replace(classifier.subnetwork, mask=jax.device_put(unflatten(mask)))
    return dataclasses.replace(classifier, subnetwork=subnetwork)


def channels(classifier):
    return sum(leaf.shape[-1] for path, leaf in flatten(classifier.subnetwork.weights).items() if "kernel" in path)


def run(classifier, images):
    model = onnx_model.build(classifier).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("resnet18", "resnet18@96"),
        ("vit_ti16", "vit_tiny_patch16_224@224"),
    ],
)
def test_files_answer_as_pytorch_did(name, case, tmp_path):
    dense, images = classifier(name, case, tmp_path), recipe.logit_images(int(case.split("@")[1]))
    with np.load(GOLDEN / "logits.npz") as golden:
        expected = golden[case]
    np.testing.assert_allclose(run(dense, images), expected, rtol=0, atol=1e-4 * expected.std())

    pruned = without_half_of_the_channels(dense, np.random.default_rng(0))
    small = deploy.shrink(pruned)
    assert channels(small) < 0.7 * channels(dense)
    masked = run(pruned, images)
    np.testing.assert_allclose(run(small, images), masked, rtol=0, atol=1e-5 * masked.std())

    packed.write(pruned, tmp_path / "a.packed.safetensors", dtype="float32")
    held = jax.device_get(pruned.subnetwork)
    kept = dataclasses.replace(held.masked(), mask=held.mask)
    read = deploy.load(tmp_path / "a.packed.safetensors").subnetwork
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, read, kept)))
    # Of one network: that of the other families, which are small, is checked in test_families.py.
    if name == "resnet18":
        # Compared with what was checked above, which saves compiling the network itself.
        stablehlo.write(small, tmp_path / "a.stablehlo", platforms=("cpu",))
        answers = stablehlo.answers(tmp_path / "a.stablehlo", small, images)
        np.testing.assert_allclose(answers, masked, rtol=0, atol=1e-5 * masked.std())
