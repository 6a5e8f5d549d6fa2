"""Files from elsewhere: layouts of other libraries, wrapped names, other networks; and the errors about them."""

import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest

from tests.models import torch_files
from tests.models.test_loading import NARROW, narrow, state_dict
from vpns_jax import models, trees
from vpns_jax.errors import UserError
from vpns_jax.models import layouts
from vpns_jax.models.registry import ENTRIES, Entry

Tensors = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """ViTs with two blocks: the full structure, but quick to trace."""
    for name in ("vit_ti32", "deit_ti16_distilled"):
        monkeypatch.setitem(ENTRIES, name, _with_depth(ENTRIES[name], 2))


def _with_depth(entry: Entry, depth: int) -> Entry:
    return dataclasses.replace(entry, architecture={**entry.architecture, "depth": depth})


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


# Other libraries' layouts, written from ours by hand. Names are those of torchvision 0.20, transformers 4.50
# and 5.24; files of torchvision 0.29 and transformers 5.24 were loaded by hand, and gave their logits (docs/models.md).

VIT_TORCHVISION = (
    (r"^cls_token", "class_token"),
    (r"^pos_embed", "encoder.pos_embedding"),
    (r"^patch_embed\.proj", "conv_proj"),
    (r"^blocks\.", "encoder.layers.encoder_layer_"),
    (r"attn\.qkv\.", "self_attention.in_proj_"),
    (r"attn\.proj", "self_attention.out_proj"),
    (r"norm(\d)\.", r"ln_\1."),
    (r"mlp\.fc1", "mlp.0"),
    (r"mlp\.fc2", "mlp.3"),
    (r"^norm", "encoder.ln"),
    (r"^head", "heads.head"),
)
VIT_TORCHVISION_OLD = (*VIT_TORCHVISION, (r"mlp\.0", "mlp.linear_1"), (r"mlp\.3", "mlp.linear_2"))
VIT_TRANSFORMERS = (
    (r"^cls_token", "vit.embeddings.cls_token"),
    (r"^pos_embed", "vit.embeddings.position_embeddings"),
    (r"^patch_embed\.proj", "vit.embeddings.patch_embeddings.projection"),
    (r"^blocks\.", "vit.encoder.layer."),
    (r"attn\.(query|key|value)", r"attention.attention.\1"),
    (r"attn\.proj", "attention.output.dense"),
    (r"norm1", "layernorm_before"),
    (r"norm2", "layernorm_after"),
    (r"mlp\.fc1", "intermediate.dense"),
    (r"mlp\.fc2", "output.dense"),
    (r"^norm", "vit.layernorm"),
    (r"^head", "classifier"),
)
VIT_TRANSFORMERS_5 = (
    *VIT_TRANSFORMERS,
    (r"encoder\.layer\.", "layers."),
    (r"attention\.attention\.query", "attention.q_proj"),
    (r"attention\.attention\.key", "attention.k_proj"),
    (r"attention\.attention\.value", "attention.v_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"(\d)\.output\.dense", r"\1.mlp.fc2"),
)
DEIT = ((r"^dist_token", "vit.embeddings.distillation_token"), (r"^head_dist", "distillation_classifier"))
DEIT = (*DEIT, (r"^head", "cls_classifier"))
RESNET_TRANSFORMERS = (
    (r"^conv1", "resnet.embedder.embedder.convolution"),
    (r"^bn1", "resnet.embedder.embedder.normalization"),
    (r"downsample\.0", "shortcut.convolution"),
    (r"downsample\.1", "shortcut.normalization"),
    (r"\.conv1", ".layer.0.convolution"),
    (r"\.conv2", ".layer.1.convolution"),
    (r"\.conv3", ".layer.2.convolution"),
    (r"\.bn1", ".layer.0.normalization"),
    (r"\.bn2", ".layer.1.normalization"),
    (r"\.bn3", ".layer.2.normalization"),
    (r"^layer1\.", "resnet.encoder.stages.0.layers."),
    (r"^layer2\.", "resnet.encoder.stages.1.layers."),
    (r"^layer3\.", "resnet.encoder.stages.2.layers."),
    (r"^layer4\.", "resnet.encoder.stages.3.layers."),
    (r"^fc", "classifier.1"),
)


def separate(tensors: Tensors) -> Tensors:
    """Splits the fused tensors into query, key and value."""
    result: Tensors = {}
    for key, tensor in tensors.items():
        if ".qkv." in key:
            parts = zip(("query", "key", "value"), np.split(tensor, 3), strict=True)
            result |= {key.replace("qkv", part): split for part, split in parts}
        else:
            result[key] = tensor
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "make"),
    [
        ("vit_torchvision", lambda: renamed(vit(), *VIT_TORCHVISION)),
        ("vit_torchvision_old", lambda: renamed(vit(), *VIT_TORCHVISION_OLD)),
        ("vit_transformers", lambda: renamed(separate(vit()), *VIT_TRANSFORMERS)),
        ("vit_transformers_5", lambda: renamed(separate(vit()), *VIT_TRANSFORMERS_5)),
    ],
)
def test_vits_in_other_layouts(layout: str, make: Callable[[], Tensors], tmp_path: Path) -> None:
    tensors = make()
    assert not any(key.startswith(("blocks", "norm", "head.")) for key in tensors)
    pretrained = load(tmp_path, tensors, "vit_ti32", num_classes=None)
    assert pretrained.layout == layout
    assert_equal(pretrained, load(tmp_path, vit(), "vit_ti32"))
    # The layout's rules also convert back to the file's tensors.
    leaves = trees.flatten(pretrained.variables)
    rules = getattr(layouts, layout)({path: leaf.shape for path, leaf in leaves.items()})
    written = {rule.name: rule.to_file(leaves) for rule in rules}
    read = {key.removeprefix("vit."): tensor for key, tensor in tensors.items()}
    assert set(written) == set(read)
    assert all(np.array_equal(written[key], read[key]) for key in read)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_in_transformers_layout(name: str, tmp_path: Path) -> None:
    ours = state_dict(name, layouts.resnet_torchvision, **NARROW)
    pretrained = load(tmp_path, renamed(ours, *RESNET_TRANSFORMERS), name, num_classes=None)
    assert pretrained.layout == "resnet_transformers"
    assert_equal(pretrained, load(tmp_path, ours, name))


@pytest.mark.parametrize(
    ("layout", "rules"),
    [("deit_transformers", (*DEIT, *VIT_TRANSFORMERS)), ("deit_transformers_5", (*DEIT, *VIT_TRANSFORMERS_5))],
)
def test_distilled_networks_in_transformers_layout(layout: str, rules: Any, tmp_path: Path) -> None:
    tensors = renamed(separate(deit()), *rules)
    pretrained = load(tmp_path, tensors, "deit_ti16_distilled", num_classes=None)
    assert pretrained.layout == layout
    assert_equal(pretrained, load(tmp_path, deit(), "deit_ti16_distilled"))


def test_a_new_head_of_a_distilled_network_is_new_twice(tmp_path: Path) -> None:
    head = load(tmp_path, deit(), "deit_ti16_distilled", num_classes=3, dont_load=("head",)).variables["params"]["head"]
    kernels = head["kernel"], head["dist"]["kernel"]
    assert all(kernel.shape == (192, 3) and np.abs(kernel).max() <= 192**-0.5 for kernel in kernels)
    assert not np.array_equal(*kernels)


def test_a_model_without_its_head_has_no_prefix(tmp_path: Path) -> None:
    tensors = renamed(separate(vit()), *VIT_TRANSFORMERS, (r"^vit\.", ""))
    bare = {key: tensor for key, tensor in tensors.items() if not key.startswith("classifier")}
    bare["pooler.dense.weight"] = np.zeros((192, 192), np.float32)
    pretrained = load(tmp_path, bare, "vit_ti32", dont_load=("head",), ignore=("pooler.*",))
    assert pretrained.layout == "vit_transformers"
    with pytest.raises(UserError, match="not used: pooler"):
        load(tmp_path, bare, "vit_ti32", dont_load=("head",))
    with pytest.raises(UserError, match=r"it has no head, and holds more.*mapping\.kind=head.*model\.ignore"):
        load(tmp_path, bare, "vit_ti32")


# Wrappers and prefixes of training scripts.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prefix", "note"),
    [
        ("module.", "took wrappers such as 'module.' off 122 names"),
        ("_orig_mod.", "took wrappers such as '_orig_mod.' off 122 names"),
        ("module._orig_mod.", "took wrappers such as 'module.' off 122 names"),
        ("model.", "took the prefix 'model.' off 122 of 122 names"),
        ("net.", "took the prefix 'net.' off 122 of 122 names"),
        ("backbone.", "took the prefix 'backbone.' off 122 of 122 names"),
        ("encoder.model.", "took the prefix 'encoder.model.' off 122 of 122 names"),
    ],
)
def test_a_prefix_of_all_names_is_taken_off_and_said(prefix: str, note: str, tmp_path: Path) -> None:
    pretrained = load(tmp_path, {prefix + key: tensor for key, tensor in narrow().items()}, num_classes=None)
    assert pretrained.notes == (note,)
    assert_equal(pretrained, load(tmp_path, narrow()))


@pytest.mark.slow
def test_prefixes_within_names_and_a_head_outside_of_the_backbone(tmp_path: Path) -> None:
    wrapped = renamed(narrow(), (r"^layer2\.", "layer2._orig_mod.")) | {"n_averaged": np.array(3)}
    assert_equal(load(tmp_path, wrapped), load(tmp_path, narrow()))
    outside = renamed(narrow(), (r"^(?!fc)", "model.backbone."), (r"^fc", "model.fc"))
    pretrained = load(tmp_path, outside, num_classes=None)
    assert pretrained.notes == ("took the prefix 'model.backbone.' off 122 of 122 names",)
    assert_equal(pretrained, load(tmp_path, narrow()))


def test_names_that_would_become_one_are_refused(tmp_path: Path) -> None:
    tensors = {f"module.{key}": tensor for key, tensor in narrow().items()} | {"fc.bias": np.zeros(10, np.float32)}
    with pytest.raises(UserError, match=r"both 'module\.fc\.bias' and 'fc\.bias' of the file become 'fc\.bias'"):
        load(tmp_path, tensors)


@pytest.mark.slow
def test_ignore_takes_names_with_and_without_the_prefix(tmp_path: Path) -> None:
    tensors = {f"model.{key}": tensor for key, tensor in narrow().items()} | {"loss.weight": np.ones(3, np.float32)}
    for pattern in ("loss.*", "loss.weight"):
        assert_equal(load(tmp_path, tensors, ignore=(pattern,)), load(tmp_path, narrow()))
    for pattern in ("fc.*", "model.fc.*"):
        load(tmp_path, tensors | {"model.fc.weight": np.ones(1)}, ignore=("loss.*", pattern), dont_load=("head",))


@pytest.mark.slow
def test_of_two_networks_in_one_file_one_has_to_be_named(tmp_path: Path) -> None:
    ones = {key: np.ones_like(tensor) for key, tensor in narrow().items()}
    tensors = {f"student.net.{key}": tensor for key, tensor in narrow().items()}
    tensors |= {f"teacher.net.{key}": tensor for key, tensor in ones.items()}
    with pytest.raises(
        UserError, match=r"under each of 'student\.net', 'teacher\.net'; name one by model\.weights_key"
    ):
        load(tmp_path, tensors)
    for key, expected in (("student", narrow()), ("teacher.net", ones)):
        assert_equal(load(tmp_path, tensors, weights_key=key), load(tmp_path, expected))
    with pytest.raises(UserError, match="weights_key 'ema' names nothing in the file, which has: student, teacher"):
        load(tmp_path, tensors, weights_key="ema")


def test_a_training_checkpoint_says_which_weights_it_took(tmp_path: Path) -> None:
    path, ones = tmp_path / "checkpoint.pth.tar", {k: np.ones_like(t) for k, t in narrow().items()}
    storages = {str(i): t.tobytes() for i, t in enumerate([*narrow().values(), *ones.values()])}

    def calls(tensors: Tensors, first: int) -> dict[str, Any]:
        keyed = enumerate(tensors.items(), first)
        return {f"module.{k}": torch_files.tensor_call(np.asarray(t, order="C"), str(i), False) for i, (k, t) in keyed}

    both = {"epoch": 3, "model": calls(narrow(), 0), "model_ema": calls(ones, len(narrow()))}
    torch_files.write_zip(path, torch_files.dumps(both), storages)
    pretrained = read(path)
    assert pretrained.notes == (
        "took the weights under 'model_ema' (also there, for model.weights_key: 'model')",
        "took wrappers such as 'module.' off 122 names",
    )
    assert_equal(pretrained, load(tmp_path, ones))
    assert_equal(read(path, weights_key="model"), load(tmp_path, narrow()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "file"),
    [(np.float16, "w.safetensors"), (np.float16, "w.npz"), (ml_dtypes.bfloat16, "w.safetensors")],
)
def test_narrow_floats_are_widened_and_said(dtype: Any, file: str, tmp_path: Path) -> None:
    half = {k: t.astype(dtype) if t.dtype == np.float32 else t for k, t in narrow().items()}
    path = tmp_path / "half" / file
    path.parent.mkdir()
    np.savez(path, **half) if path.suffix == ".npz" else models.save_safetensors(path, half)
    pretrained = read(path)
    assert pretrained.notes == (f"widened 102 tensors from {np.dtype(dtype).name} to float32",)
    assert_equal(
        pretrained, load(tmp_path, {k: t.astype(np.float32) if t.dtype == dtype else t for k, t in half.items()})
    )


def test_the_log_has_what_load_pretrained_notes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.savez(tmp_path / "w.npz", **{f"module.{key}": tensor for key, tensor in narrow().items()})
    models.load_pretrained("resnet18", tmp_path / "w.npz", **NARROW)
    assert [record.name for record in caplog.records] == ["vpns_jax"]
    assert "w.npz: took wrappers such as 'module.' off 122 names" in caplog.text


# Files that do not fit, and the likeliest cause.


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
