"""Names that training scripts wrap, files of several networks, narrow floats: what is taken, and what is said."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.models import torch_files
from tests.models.foreign_files import Tensors, assert_equal, load, read, renamed
from tests.models.test_loading import NARROW, narrow
from vpns_jax import models
from vpns_jax.errors import UserError


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
