"""The normalization depends on the weights, and files beside them are checked."""

import json
from pathlib import Path
from typing import Any

import pytest

from vpns_jax import models
from vpns_jax.errors import UserError
from vpns_jax.models.registry import HALVES, IMAGENET

MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
TIMM = {"architecture": "vit_tiny_patch16_224", "num_classes": 10, "pretrained_cfg": {"mean": MEAN, "std": STD}}


def find(folder: Path, name: str = "vit_ti16", *, layout: str | None = "vit_timm", **files: Any) -> Any:
    for file, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{file}.json").write_text(text)
    return models.find_normalization(name, folder / "w.safetensors", layout=layout)


@pytest.mark.parametrize(
    "files",
    [
        {"config": TIMM},
        {"config": TIMM | {"architecture": "deit_tiny_patch16_224"}},
        {"config": {"architecture": "vit_tiny_patch16_224", "mean": MEAN, "std": STD}},
        {"config": {"model_type": "vit"}, "preprocessor_config": {"image_mean": MEAN, "image_std": STD}},
    ],
)
def test_a_file_beside_the_weights_decides(files: Any, tmp_path: Path) -> None:
    normalization = find(tmp_path, **files)
    assert (normalization.mean, normalization.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert f"as {list(files)[-1]}.json beside the weights says" in str(normalization)
    assert str(normalization).startswith("mean (0.1, 0.2, 0.3), std (0.4, 0.5, 0.6), ")


def test_without_one_the_layout_decides_and_then_the_default_weights(tmp_path: Path) -> None:
    # A run's own config.json has no normalization.
    config = {"model": {"name": "vit_ti16"}, "name": "quickstart"}
    for layout, expected in (("vit_timm", HALVES), ("vit_torchvision", IMAGENET), ("vit_torchvision_old", IMAGENET)):
        normalization = find(tmp_path, layout=layout, config=config)
        assert (normalization.mean, normalization.std) == expected
    assert models.find_normalization("vit_ti16").mean == HALVES[0]
    assert models.find_normalization("deit_tiny_patch16_224").mean == IMAGENET[0]
    assert models.find_normalization("resnet18", models.default_source("resnet18")).mean == IMAGENET[0]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (TIMM | {"architecture": "vit_base_patch16_224"}, "is of vit_base_patch16_224, not of vit_ti16"),
        (TIMM | {"architecture": "deit_tiny_distilled_patch16_224"}, "is of deit_tiny_dist.*, not of vit_ti16"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        (TIMM | {"pretrained_cfg": {"mean": MEAN}}, "std is None; it must be three numbers"),
        (TIMM | {"pretrained_cfg": {"mean": MEAN, "std": [0, 1, 1]}}, r"std is \[0, 1, 1\]; .* in \[0.001, 1\]"),
        (TIMM | {"pretrained_cfg": {"mean": [123.7, 116.3, 103.5], "std": STD}}, r"numbers in \[0, 1\]"),
        (TIMM | {"pretrained_cfg": {"mean": [0.5], "std": [0.5]}}, "three numbers"),
        (TIMM | {"pretrained_cfg": {"mean": ["0.5"] * 3, "std": STD}}, "three numbers"),
        ('{"pretrained_cfg": {"mean": [NaN, 0, 0], "std": [1, 1, 1]}}', "three numbers"),
    ],
)
def test_a_file_that_cannot_be_believed_is_refused(config: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        find(tmp_path, config=config)
    assert "set model.mean and model.std" in str(caught.value)
    assert len(str(caught.value)) <= 400
    assert "\n" not in str(caught.value)
