"""Weight files from elsewhere for tests: loading them, and names replaced by rules."""

import functools
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests.models.test_loading import NARROW, state_dict
from vpns_jax import models
from vpns_jax.models import layouts

Tensors = dict[str, np.ndarray]


@functools.cache
def vit() -> Tensors:
    return state_dict("vit_ti32", layouts.vit_timm, num_classes=10)


@functools.cache
def deit() -> Tensors:
    return state_dict("deit_ti16_distilled", layouts.vit_timm, num_classes=10)


def load(tmp_path: Path, tensors: Tensors, name: str = "resnet18", **options: Any) -> models.Pretrained:
    np.savez(tmp_path / "w.npz", **tensors)
    return read(tmp_path / "w.npz", name, **options)


def read(path: Path, name: str = "resnet18", **options: Any) -> models.Pretrained:
    plain = NARROW if name.startswith("resnet") else {"num_classes": 10}
    return models.read_pretrained(name, path, **plain | options)


def assert_equal(a: models.Pretrained, b: models.Pretrained) -> None:
    assert jax.tree.all(jax.tree.map(np.array_equal, a.variables, b.variables))


def renamed(tensors: Tensors, *rules: tuple[str, str]) -> Tensors:
    """Tensors whose names have every pattern replaced."""
    result = {}
    for key, tensor in tensors.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        result[key] = tensor
    return result
