"""Files that do not fit a network, and the likeliest cause that the error names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.foreign_files import Tensors, deit, load, vit
from tests.models.test_loading import NARROW, narrow, state_dict
from vpns_jax import models
from vpns_jax.errors import UserError
from vpns_jax.models import layouts

pytestmark = pytest.mark.usefixtures("shallow")


def changed(changes: dict[str, Any], tensors: Tensors | None = None) -> Tensors:
    tensors = narrow() if tensors is None else tensors
    return {key: tensor for key, tensor in (tensors | changes).items() if tensor is not None}


HEAD = {"fc.weight": None, "fc.bias": None}
W, B = np.ones((10, 32), np.float32), np.ones(10, np.float32)
NEW_HEAD = r"mapping\.kind=head, or dont_load=\('head',\), makes a new one"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        (
            HEAD | {"classifier.weight": W, "classifier.bias": B},
            r"its head has another name \(classifier\.weight and",
        ),
        (HEAD | {"fc.1.weight": W, "fc.1.bias": B}, r"its head has another name \(fc\.1\.weight and"),
        (HEAD | {"head.fc.weight": W, "head.fc.bias": B}, r"its head has another name \(head\.fc\.weight and"),
        ({"fc.weight": W[:7], "fc.bias": B[:7]}, "its head is for another number of classes"),
        (HEAD, "it has no head"),
    ],
)
def test_another_head_gets_the_sentence_that_helps(changes: dict[str, Any], cause: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{cause}.*{NEW_HEAD}"):
        load(tmp_path, changed(changes))
    # The suggested remedy works.
    pretrained = load(tmp_path, changed(changes), dont_load=("head",))
    assert ("skipped the file's own head" in str(pretrained.notes)) == any(key not in narrow() for key in changes)


X = np.ones((1, 1, 192), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"reg_token": X}, r"a ViT with registers \(reg_token\); that is not supported"),
        ({"dist_token": X, "head_dist.bias": B}, r"a distilled ViT, with a second token and head \(dist_token\); load"),
        ({"fc_norm.weight": X, "norm.weight": None}, r"a ViT that averages its tokens \(fc_norm\.weight\)"),
        ({"cls_token": None}, r"a ViT without class token \(cls_token\)"),
        ({"blocks.0.ls1.gamma": X}, "a ViT with layer scale"),
        ({"pre_logits.fc.weight": X}, "a ViT with a layer before its head"),
    ],
)
def test_variants_of_vits_are_named(changes: dict[str, Any], what: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"does not fit vit_ti32: it is {what}"):
        load(tmp_path, changed(changes, vit()), "vit_ti32", num_classes=None)


def test_a_vit_is_no_distilled_network(tmp_path: Path) -> None:
    plain = {key: tensor for key, tensor in deit().items() if "dist" not in key}
    plain["pos_embed"] = plain["pos_embed"][:, 1:]
    with pytest.raises(UserError, match=r"it is a ViT without distillation token \(dist_token\); that is not"):
        load(tmp_path, plain, "deit_ti16_distilled")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda: {f"conv{i}.deep.weight": W for i in range(500)}, "its names are those of another network"),
        (lambda: state_dict("resnet34", layouts.resnet_torchvision, **NARROW), "it holds more than that network"),
        (lambda: {k: t for k, t in narrow().items() if "layer4" not in k}, "it holds only a part of that network"),
        (
            lambda: state_dict("resnet18", layouts.resnet_torchvision, num_classes=10),
            "its network has another width, depth or",
        ),
        (lambda: {k: t.astype(np.float64) for k, t in narrow().items()}, "it stores other dtypes"),
        (lambda: {k: t * np.nan if t.dtype == np.float32 else t for k, t in narrow().items()}, "it is damaged, or its"),
        (lambda: changed({"conv1.0.weight": W}), "it is a ResNet with a deep stem"),
        (lambda: changed({"a" * 5000: W}), "it holds more than that network"),
        (dict, "its names are those of another network"),
    ],
)
def test_errors_are_short_and_their_details_whole(make: Callable[[], Tensors], cause: str, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30) / ("path" * 30)
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match=f"does not fit resnet18: {cause}") as caught:
        load(folder, make())
    assert len(str(caught.value)) <= 400
    assert "\n" not in str(caught.value)
    assert len(caught.value.details) >= 1


# A constant head.


def head(kernel: np.ndarray, bias: np.ndarray) -> dict[str, Any]:
    return {"params": {models.HEAD: {"kernel": kernel, "bias": bias}}}


def test_a_constant_head_is_refused() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((4, 3)).astype(np.float32)
    models.check_head(head(kernel, np.zeros(3)))
    models.check_head(head(kernel[:, :1], np.zeros(1)))
    # Of a distilled network's two kernels one may be constant.
    distilled = head(0 * kernel, np.zeros(3))
    distilled["params"][models.HEAD]["dist"] = {"kernel": kernel, "bias": np.zeros(3)}
    models.check_head(distilled)
    for constant, words in (
        (0 * kernel, "all 0,"),
        (np.full_like(kernel, 0.5), r"all 0\.5,"),
        (np.repeat(kernel[:, :1], 3, axis=1), "equal for all classes"),
    ):
        with pytest.raises(UserError, match=rf"head of these weights is constant \({words}.*mapping\.kind=head"):
            models.check_head(head(constant, rng.standard_normal(3)))
