"""The networks give the logits of independent PyTorch implementations.

The loaded tensors of each case give the logits in `tests/golden`, up to 1e-4 of their standard deviation, and exporting
gives the file's tensors again. All formats are read back bit for bit.
"""

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

pytestmark = pytest.mark.slow

GOLDEN = Path(recipe.__file__).parent
CASES = json.loads((GOLDEN / "logits.json").read_text())
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


def load(name: str, tensors: dict[str, np.ndarray], folder: Path) -> Any:
    """Variables, read from a file."""
    path = folder / "weights.safetensors"
    models.save_safetensors(path, tensors)
    return models.load_pretrained(name, path)


def assert_golden(name: str, variables: Any, size: int, mean: Any, std: Any, golden: np.ndarray) -> None:
    images = (recipe.logit_images(size) / np.float32(255) - np.float32(mean)) / np.float32(std)
    logits = jax.jit(models.create(name).apply)(variables, images)
    assert logits.shape == golden.shape
    np.testing.assert_allclose(logits, golden, rtol=0, atol=1e-4 * golden.std())


def assert_exports(name: str, variables: Any, tensors: dict[str, np.ndarray]) -> None:
    exported = models.export(name, variables)
    assert set(exported) == set(tensors)
    for key, tensor in tensors.items():
        assert (exported[key].dtype, exported[key].shape) == (tensor.dtype, tensor.shape), key
        assert np.array_equal(exported[key].reshape(-1).view(np.uint8), tensor.reshape(-1).view(np.uint8)), key


@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("resnet18", ["resnet18@224", "resnet18@96"]),
        ("resnet50", ["resnet50@224"]),
        ("vgg16", ["vgg16@224", "vgg16@64"]),
        ("vit_ti16", ["vit_tiny_patch16_224@224"]),
    ],
)
def test_logits_counts_and_export(name: str, cases: list[str], tmp_path: Path) -> None:
    facts = CASES[cases[0]]
    tensors = {key: recipe.torch_tensor(key, tuple(shape)) for key, shape in facts["state_dict"].items()}
    variables = load(name, tensors, tmp_path)
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
