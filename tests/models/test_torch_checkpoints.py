"""Checkpoints of torch: the weights are found, whatever stands beside them."""

import argparse
import collections
import enum
import http
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import torch_files
from tests.models.weight_files import TENSORS, Evil, lying
from vpns_jax.errors import UserError
from vpns_jax.models import formats


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_nested_weights_are_found_beside_other_entries(key: str, tmp_path: Path) -> None:
    pickled = torch_files.dumps({"epoch": 3, key: lying()})
    torch_files.write_zip(tmp_path / "w.pth", pickled, {"0": TENSORS["w"].tobytes()})
    np.testing.assert_array_equal(formats.read(tmp_path / "w.pth")["w"], TENSORS["w"])


class Options(collections.OrderedDict):
    """A custom dict class."""


class Outer:
    """Protocol 2, that of `torch.save`, names what is in it by `getattr`."""

    class Options:
        """A class inside of a class."""

    class Kind(enum.Enum):
        """An enum inside of a class."""

        ONE = 1


BESIDE = {
    "namespace": argparse.Namespace(lr=0.1, sizes=[1, 2]),
    "numpy scalar": np.float64(3),
    "numpy array": np.arange(3),
    "dict class": Options(lr=0.1),
    "path": Path("/data"),
    "set": {1, 2},
    "deque": collections.deque([1, 2]),
    "class": zipfile.Path,
    "enum": http.HTTPStatus.OK,
    "class in a class": Outer.Options,
    "object of a class in a class": Outer.Options(),
    "enum in a class": Outer.Kind.ONE,
    "counter": collections.Counter("aab"),
    "paths as keys": {Path("/data"): 1},
}


def read_beside(value: Any, path: Path, *, legacy: bool) -> None:
    """Reads the weights of a checkpoint which holds a value beside them."""
    state = {"w": torch_files.tensor_call(TENSORS["w"], "0", legacy)}
    pickled = torch_files.dumps({"args": torch_files.Real(value), "epoch": 3, "model": state})
    data = TENSORS["w"].tobytes()
    if legacy:
        torch_files.write_legacy(path, pickled, {"0": (6, data)})
    else:
        torch_files.write_zip(path, pickled, {"0": data})
    contents = formats.read_contents(path)
    np.testing.assert_array_equal(contents.tensors["w"], TENSORS["w"])
    assert contents.notes == ("took the weights under 'model'",)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("beside", BESIDE)
def test_what_stands_beside_the_tensors_does_not_matter(beside: str, legacy: bool, tmp_path: Path) -> None:
    read_beside(BESIDE[beside], tmp_path / "checkpoint.pth.tar", legacy=legacy)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_stands_beside_the_tensors_is_never_made(legacy: bool, tmp_path: Path) -> None:
    read_beside(Evil(tmp_path / "proof"), tmp_path / "checkpoint.pth.tar", legacy=legacy)
    assert not (tmp_path / "proof").exists()


def test_no_tensor_among_the_tensors_is_passed_over_and_said(tmp_path: Path) -> None:
    state = lying() | {"epoch": 3, "args": torch_files.Real(BESIDE["namespace"])}
    torch_files.write_zip(tmp_path / "w.pth", torch_files.dumps(state), {"0": TENSORS["w"].tobytes()})
    contents = formats.read_contents(tmp_path / "w.pth")
    assert list(contents.tensors) == ["w"]
    assert contents.others == {"epoch": "int", "args": "argparse.Namespace"}
    assert contents.notes == ("skipped entries that are no tensors: 'epoch' (int), 'args' (argparse.Namespace)",)


def test_a_state_dict_in_an_unknown_dict_class(tmp_path: Path) -> None:
    filled = torch_files.dumps(torch_files.Real(Options()))[:-1] + pickle.MARK + tensor_items() + pickle.SETITEMS + b"."
    torch_files.write_zip(tmp_path / "w.pth", filled, {"0": TENSORS["w"].tobytes()})
    np.testing.assert_array_equal(formats.read(tmp_path / "w.pth")["w"], TENSORS["w"])


def test_a_whole_pickled_object_says_what_to_save(tmp_path: Path) -> None:
    torch_files.write_zip(tmp_path / "w.pth", torch_files.dumps(torch_files.Real(BESIDE["namespace"])), {})
    with pytest.raises(UserError, match=r"a whole argparse\.Namespace, not a state dict; save model\.state_dict\(\)"):
        formats.read(tmp_path / "w.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_beside_a_state_dict_do_not_hide_it(legacy: bool, tmp_path: Path) -> None:
    """PyTorch's ImageNet example keeps its best accuracy so, others the state of random generators."""
    arrays = {"w": np.ones((2, 3), np.float32), "v": np.ones(4, np.float32), "n": np.array(5)}
    one, state = np.ones(1, np.float32), np.arange(9)
    keyed = {str(i): x for i, x in enumerate([*arrays.values(), one, state])}
    call = {key: torch_files.tensor_call(x, key, legacy) for key, x in keyed.items()}
    checkpoint = {
        "state_dict": dict(zip(arrays, call.values(), strict=False)),
        "best_acc1": call["3"],
        "rng_state": call["4"],
        "callbacks": {"best": call["3"]},
    }
    path, dumped = tmp_path / "w.pth.tar", torch_files.dumps(checkpoint)
    if legacy:
        torch_files.write_legacy(path, dumped, {key: (x.size, x.tobytes()) for key, x in keyed.items()})
    else:
        torch_files.write_zip(path, dumped, {key: x.tobytes() for key, x in keyed.items()})
    found = formats.read_contents(path)
    assert found.notes == ("took the weights under 'state_dict'",)
    assert found.tensors.keys() == arrays.keys()
    assert all(np.array_equal(found.tensors[name], x) for name, x in arrays.items())


def test_of_several_state_dicts_the_averaged_one_or_the_one_named(tmp_path: Path) -> None:
    ones = np.ones((2, 3), np.float32)
    checkpoint = {
        "model": {"w": torch_files.tensor_call(TENSORS["w"], "0", False)},
        "model_ema": {"module.w": torch_files.tensor_call(ones, "1", False), "n": 3},
        "optimizer": {"state": {0: {"exp_avg": torch_files.tensor_call(ones, "1", False)}}},
        "deep": {"er": {"state_dict": {"w": torch_files.tensor_call(ones, "1", False)}}},
    }
    storages = {"0": TENSORS["w"].tobytes(), "1": ones.tobytes()}
    path = tmp_path / "w.ckpt"
    torch_files.write_zip(path, torch_files.dumps(checkpoint), storages)
    contents = formats.read_contents(path)
    assert list(contents.tensors) == ["module.w"]
    assert contents.notes[0] == (
        "took the weights under 'model_ema' (also there, for model.weights_key: 'model', 'deep.er.state_dict')"
    )
    assert not contents.key_used
    for key, tensor in (("model", TENSORS["w"]), ("deep", ones), ("deep.er.state_dict", ones)):
        named = formats.read_contents(path, key)
        np.testing.assert_array_equal(named.tensors["w"], tensor)
        assert named.key_used
    pair = {"teacher": checkpoint["model"], "student": checkpoint["model"]}
    torch_files.write_zip(path, torch_files.dumps(pair), storages)
    with pytest.raises(UserError, match=r"several state dicts: 'teacher', 'student'; name one by model\.weights_key"):
        formats.read(path)


def test_an_optimizers_storages_are_skipped_in_the_old_container(tmp_path: Path) -> None:
    momentum = np.ones(5, np.int64)
    state = {
        "optimizer": {"state": {0: {"m": torch_files.tensor_call(momentum, "1", True)}}},
        "state_dict": {"w": torch_files.tensor_call(TENSORS["w"], "0", True)},
    }
    storages = {"1": (5, momentum.tobytes()), "0": (6, TENSORS["w"].tobytes())}
    torch_files.write_legacy(tmp_path / "w.PTH", torch_files.dumps(state), storages)
    np.testing.assert_array_equal(formats.read(tmp_path / "w.PTH")["w"], TENSORS["w"])


def tensor_items() -> bytes:
    return torch_files.dumps("w")[2:-1] + torch_files.dumps(lying()["w"])[2:-1]


def test_a_torchscript_program_says_what_to_save(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/net.py"):
            archive.writestr(f"archive/{name}", b"", zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match=r"a TorchScript program, not a state dict; save model\.state_dict\(\)"):
        formats.read(path)


def test_views_of_a_shared_storage(tmp_path: Path) -> None:
    transposed = torch_files.tensor_call(TENSORS["w"], "0", False, size=(3, 2), stride=(1, 3))
    tail = torch_files.tensor_call(TENSORS["w"], "0", False, offset=4, size=(2,), stride=(1,))
    pickled = torch_files.dumps({"transposed": transposed, "tail": tail})
    torch_files.write_zip(tmp_path / "w.pth", pickled, {"0": TENSORS["w"].tobytes()})
    tensors = formats.read(tmp_path / "w.pth")
    np.testing.assert_array_equal(tensors["transposed"], TENSORS["w"].T)
    np.testing.assert_array_equal(tensors["tail"], [4, 5])
