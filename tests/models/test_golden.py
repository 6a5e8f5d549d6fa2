"""The networks give the logits of independent PyTorch implementations.

The loaded tensors of each case give the logits in `tests/golden`, up to 1e-4 of their standard deviation, and exporting
gives the file's tensors again. All formats are read back bit for bit.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.golden import recipe
from tests.models import torch_files
from vpns_jax import models
from vpns_jax.models import formats
from vpns_jax.models.registry import ENTRIES

pytestmark = pytest.mark.slow

GOLDEN = Path(recipe.__file__).parent
CASES = json.loads((GOLDEN / "logits.json").read_text())
# timm 1.0.31's own numbers, of networks as small as their classes allow.
SMALL = json.loads((GOLDEN / "timm.json").read_text())["small"]
AUGREG = json.loads((GOLDEN / "augreg_ti16.json").read_text())

WRITERS: dict[str, Callable[[Path, dict[str, np.ndarray]], None]] = {
    ".safetensors": models.save_safetensors,
    ".pth": torch_files.save,
    ".npz": lambda path, tensors: np.savez(path, **tensors),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_back_what_was_written(suffix: str, tmp_path: Path) -> None:
    tensors = {
        key: recipe.torch_tensor(key, tuple(shape)) for key, shape in CASES["resnet18@224"]["state_dict"].items()
    }
    path = tmp_path / f"weights{suffix}"
    WRITERS[suffix](path, tensors)
    loaded = formats.read(path)
    assert sorted(loaded) == sorted(tensors)
    for key, tensor in tensors.items():
        assert loaded[key].dtype == tensor.dtype, key
        assert np.array_equal(loaded[key], tensor), key


def load(name: str, tensors: dict[str, np.ndarray], folder: Path, **options: Any) -> Any:
    """Variables, read from a file."""
    path = folder / "weights.safetensors"
    models.save_safetensors(path, tensors)
    return models.load_pretrained(name, path, **options)


def fit(name: str, tensors: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Variables, from what is in a file: to write and read half a gigabyte takes seconds."""
    monkeypatch.setattr(formats, "read_contents", lambda path, key: formats.Contents(tensors))
    return models.load_pretrained(name, Path(__file__))


@functools.cache
def apply(name: str, **options: Any) -> Any:
    """The network's compiled function; one for all tests, which compiles a size of images once."""
    return jax.jit(models.create(name, **options).apply)


def assert_golden(
    name: str, variables: Any, size: int, mean: Any, std: Any, golden: np.ndarray, **options: Any
) -> None:
    images = (recipe.logit_images(size) / np.float32(255) - np.float32(mean)) / np.float32(std)
    logits = apply(name, **options)(variables, images)
    assert logits.shape == golden.shape
    np.testing.assert_allclose(logits, golden, rtol=0, atol=1e-4 * golden.std())


def assert_exports(name: str, variables: Any, tensors: dict[str, np.ndarray]) -> None:
    exported = models.export(name, variables)
    assert set(exported) == set(tensors)
    for key, tensor in tensors.items():
        assert (exported[key].dtype, exported[key].shape) == (tensor.dtype, tensor.shape), key
        bits = f"u{tensor.dtype.itemsize}"
        assert np.array_equal(exported[key].reshape(-1).view(bits), tensor.reshape(-1).view(bits)), key


@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("resnet18", ["resnet18@224", "resnet18@96"]),
        ("resnet50", ["resnet50@224"]),
        ("vgg16", ["vgg16@224", "vgg16@64"]),
        ("vit_ti16", ["vit_tiny_patch16_224@224"]),
    ],
)
def test_logits_counts_and_export(name: str, cases: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = CASES[cases[0]]
    tensors = {key: recipe.torch_tensor(key, tuple(shape)) for key, shape in facts["state_dict"].items()}
    variables = fit(name, tensors, monkeypatch) if name == "vgg16" else load(name, tensors, tmp_path)
    assert sum(p.size for p in jax.tree.leaves(variables["params"])) == facts["params"]
    np.testing.assert_allclose(models.normalization(name), (facts["mean"], facts["std"]), rtol=1e-6)
    assert_exports(name, variables, tensors)
    with np.load(GOLDEN / "logits.npz") as golden:
        for case in cases:
            size = int(case.split("@")[1])
            assert_golden(name, variables, size, facts["mean"], facts["std"], golden[case])


def test_every_golden_case_is_tested() -> None:
    marks = test_logits_counts_and_export.pytestmark
    assert {case for _, cases in marks[0].args[1] for case in cases} == set(CASES)


def test_augreg_layout(tmp_path: Path) -> None:
    tensors = {key: recipe.augreg_tensor(key, tuple(shape)) for key, shape in AUGREG.items()}
    variables = load("vit_ti16", tensors, tmp_path)
    with np.load(GOLDEN / "augreg_ti16.npz") as golden:
        assert_golden("vit_ti16", variables, 224, [0.5] * 3, [0.5] * 3, golden["augreg_ti16@224"])


@pytest.mark.parametrize(
    ("case", "name", "architecture", "options"),
    [
        ("convnext", "convnext_tiny", {"depths": (1, 2, 1, 1)}, {"width": 1 / 12}),
        ("deit_distilled", "deit_ti16_distilled", {"features": 64, "depth": 2}, {}),
    ],
)
def test_small_networks_of_timm(
    case: str, name: str, architecture: Any, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, facts = ENTRIES[name], SMALL[case]
    small = dataclasses.replace(entry, architecture=dict(entry.architecture) | architecture)
    # Under a name of its own, because what names mean is cached.
    monkeypatch.setitem(ENTRIES, case, small)
    tensors = {key: recipe.torch_tensor(key, tuple(shape)) for key, shape in facts["state_dict"].items()}
    variables = load(case, tensors, tmp_path, num_classes=10, image_size=facts["size"], **options)
    assert sum(p.size for p in jax.tree.leaves(variables["params"])) == facts["parameters"]
    assert_exports(case, variables, tensors)
    golden = np.array(facts["logits"], np.float32)
    mean_std = recipe.IMAGENET_MEAN, recipe.IMAGENET_STD
    assert_golden(case, variables, facts["size"], *mean_std, golden, num_classes=10, **options)
