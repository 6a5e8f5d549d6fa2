"""Readers of weight files: what they read, and which hostile or broken files they refuse."""

import argparse
import collections
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from tests.models import torch_files
from tests.models.torch_files import Call, Global, Persistent
from vpns_jax.errors import UserError
from vpns_jax.models import formats, save_safetensors
from vpns_jax.models.formats import unpickler

TENSORS = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scalar": np.array(7, np.int64),
    "half": np.ones(3, np.float16),
    "empty": np.zeros((0, 2), np.float32),
}


def save_legacy(path: Path, tensors: dict[str, np.ndarray]) -> None:
    torch_files.save(path, tensors, legacy=True)


WRITERS: list[tuple[str, Callable[[Path, dict[str, np.ndarray]], None]]] = [
    ("w.safetensors", save_safetensors),
    ("w.pth", torch_files.save),
    ("legacy.pt", save_legacy),
    ("w.npz", lambda path, tensors: np.savez(path, **tensors)),
    ("packed.npz", lambda path, tensors: np.savez_compressed(path, **tensors)),
]


@pytest.mark.parametrize(("file", "write"), WRITERS)
def test_every_format_gives_back_what_was_written(file: str, write: Any, tmp_path: Path) -> None:
    write(tmp_path / file, TENSORS)
    tensors = formats.read(tmp_path / file)
    assert set(tensors) == set(TENSORS)
    for name, expected in TENSORS.items():
        assert (tensors[name].dtype, tensors[name].shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(tensors[name], expected)


@pytest.mark.parametrize(("file", "write"), WRITERS)
def test_a_truncated_file_is_refused_wherever_it_ends(file: str, write: Any, tmp_path: Path) -> None:
    path = tmp_path / file
    write(path, TENSORS)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=file):
            formats.read(path)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "write"), WRITERS)
def test_no_damaged_byte_does_worse_than_a_user_error(file: str, write: Any, tmp_path: Path) -> None:
    path = tmp_path / file
    write(path, {"w": TENSORS["w"]})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            formats.read(path)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_no_byte_of_a_safetensors_file_of_ours_can_be_another(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_safetensors(path, TENSORS)
    whole, noticed = path.read_bytes(), 0
    rng = np.random.default_rng(0)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            tensors = formats.read(path)
        except UserError:
            noticed += 1
        else:
            # In the checksum's own name, which nobody looks for then, or in the "format" of other readers.
            assert all(np.array_equal(tensors[name], expected) for name, expected in TENSORS.items()), place
    assert len(whole) - noticed < 40
    assert safetensors.numpy.load(whole).keys() == TENSORS.keys()


def test_missing_file_and_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.npz: no such file"):
        formats.read(tmp_path / "none.npz")
    with pytest.raises(UserError, match=r"unknown weight format '\.h5'; known: \.safetensors, \.npz, \.pth"):
        formats.read(tmp_path / "weights.h5")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz"])
@pytest.mark.parametrize(
    ("begin", "what"),
    [
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"<html><body>sign in", "a web page"),
        (b"\xef\xbb\xbf<?xml version", "an XML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS's pointer"),
    ],
)
def test_a_page_in_a_weight_files_place(suffix: str, begin: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(begin + b" " * 500)
    with pytest.raises(UserError, match=rf"w\{suffix} is {what}.*, not weights: remove it"):
        formats.read(path)


def test_no_error_is_longer_than_a_screen_line_holds(tmp_path: Path) -> None:
    torch_files.write_zip(tmp_path / "w.pth", torch_files.dumps({"w" * 10**5: 3}), {})
    with pytest.raises(UserError) as caught:
        formats.read(tmp_path / "w.pth")
    assert len(str(caught.value)) <= 400


# safetensors


def test_safetensors_agree_with_the_library(tmp_path: Path) -> None:
    tensors = TENSORS | {"brain": np.ones(3, ml_dtypes.bfloat16), "flag": np.array([True, False])}
    save_safetensors(tmp_path / "ours.safetensors", tensors)
    theirs = safetensors.numpy.load_file(tmp_path / "ours.safetensors")
    assert {k: v.tobytes() for k, v in theirs.items()} == {k: v.tobytes() for k, v in tensors.items()}
    safetensors.numpy.save_file(tensors, tmp_path / "theirs.safetensors")
    ours = formats.read(tmp_path / "theirs.safetensors")
    assert {k: v.tobytes() for k, v in ours.items()} == {k: v.tobytes() for k, v in tensors.items()}
    with pytest.raises(UserError, match="complex64"):
        save_safetensors(tmp_path / "no.safetensors", {"w": np.zeros(1, np.complex64)})


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ([1], "expected struct HashMetadata"),
        ("{", "EOF while parsing an object"),
        ('{"w": {}, "w": {}}', "missing field `dtype`"),
        (f'{{"w": {json.dumps(entry())}, "w": {json.dumps(entry())}}}', "twice"),
        ({"w": [1]}, "expected string or map"),
        ({"w": entry() | {"more": 1}}, "must hold dtype, shape and data_offsets"),
        ({"w": entry(dtype="F31")}, "unknown variant `F31`"),
        ({"w": entry(dtype="F8_E4M3", shape=[8])}, "dtype 'F8_E4M3' is not read; known: F64, F32"),
        ({"w": entry(shape=[3])}, "invalid shape"),
        ({"w": entry(shape=[2**62, 4])}, "overflow computing buffer size"),
        ({"w": entry(shape=[-1, -2])}, "integer `-1`, expected usize"),
        ({"w": entry(shape=[2.0])}, "floating point `2.0`, expected usize"),
        ({"w": entry(shape=[True, 2])}, "boolean `true`, expected usize"),
        ({"w": entry(offsets=[8, 0])}, "invalid offset"),
        ({"w": entry(offsets=[0, 4, 8])}, "invalid length 3"),
        ({"w": entry(offsets=[4, 12])}, "invalid offset"),
        ({"w": entry(), "v": entry()}, "invalid offset"),
        ({"w": entry(shape=[1], offsets=[0, 4])}, "not fully covered"),
        ({"w": entry(shape=[4], offsets=[0, 16])}, "truncated"),
        ("[" * 100_000, "expected struct HashMetadata"),
    ],
)
def test_lying_safetensors_headers_are_refused(header: Any, reason: str, tmp_path: Path) -> None:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(UserError, match=reason):
        formats.read(path)


@pytest.mark.parametrize("length", [10**6, 2**63, 2**64 - 1])
def test_a_safetensors_header_longer_than_the_file_is_refused(length: int, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError, match=r"invalid header length|header too large"):
        formats.read(path)


# torch


class Evil:
    """An object that creates a file if an ordinary unpickler loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_that_would_run_code_is_refused_in_both_containers(tmp_path: Path) -> None:
    proof, bomb = tmp_path / "proof", pickle.dumps({"w": Evil(tmp_path / "proof")})
    pickle.loads(bomb)
    assert proof.exists(), "the bomb itself is a dud"
    proof.unlink()
    torch_files.write_zip(tmp_path / "zip.pth", bomb, {})
    torch_files.write_legacy(tmp_path / "legacy.pth", bomb, {})
    (tmp_path / "bare.pth").write_bytes(bomb)
    for file in ("zip.pth", "legacy.pth", "bare.pth"):
        with pytest.raises(UserError, match=r"pickle asks for pathlib\S*; only tensors are read, nothing is run"):
            formats.read(tmp_path / file)
        assert not proof.exists()


@pytest.mark.parametrize(
    "name",
    ["os.system", "builtins.eval", "builtins.getattr", "torch.load", "torch.nn.Linear", "torch._utils.sys",
     "collections.OrderedDict.fromkeys", "numpy.core.multiarray._reconstruct", "argparse.Namespace"],
)  # fmt: skip
def test_the_unpickler_knows_no_other_name(name: str, tmp_path: Path) -> None:
    module, _, attribute = name.rpartition(".")
    if module == "collections.OrderedDict":
        module, attribute = "collections", "OrderedDict.fromkeys"
    torch_files.write_zip(tmp_path / "w.pth", torch_files.dumps({"w": Call(Global(module, attribute), ("x",))}), {})
    with pytest.raises(UserError, match=f"pickle asks for {name}"):
        formats.read(tmp_path / "w.pth")


def lying(**lies: Any) -> dict[str, Any]:
    return {"w": torch_files.tensor_call(TENSORS["w"], "0", False, **lies)}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (lying(size=(3, 3)), "reaches past its storage"),
        (lying(offset=1), "reaches past its storage"),
        (lying(size=(2**40, 2**40), stride=(0, 0)), "reaches past its storage"),
        (lying(stride=(3, 2)), "reaches past its storage"),
        (lying(stride=(-3, 1)), "integers >= 0"),
        (lying(offset=-1), "integers >= 0"),
        (lying(size=("2", 3)), "integers >= 0"),
        (lying(size=(2,)), "integers >= 0"),
        (lying(count=7), "storage has 24 bytes, not 7"),
        (lying(count=10**12), "storage has 24 bytes"),
        ({"w": torch_files.tensor_call(TENSORS["w"], "9", False)}, "storage '9' is not in the archive"),
        ({"w": 3}, "entry 'w' is no tensor"),
        ({"w": Global("torch", "FloatStorage")}, "entry 'w' is no tensor"),
        ({"w": Persistent(("module", "x"))}, "names no tensor storage"),
        ({"w": Call(Global("torch._utils", "_rebuild_tensor_v2"), ("a", 0, (), ()))}, "no proper storage"),
        ({3: torch_files.tensor_call(TENSORS["w"], "0", False)}, "entry '3' is no tensor"),
        ([1, 2], "holds a list, not a dict"),
    ],
)
def test_lying_tensors_are_refused(state: Any, reason: str, tmp_path: Path) -> None:
    torch_files.write_zip(tmp_path / "w.pth", torch_files.dumps(state), {"0": TENSORS["w"].tobytes()})
    with pytest.raises(UserError, match=reason):
        formats.read(tmp_path / "w.pth")


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_nested_weights_are_found_beside_other_entries(key: str, tmp_path: Path) -> None:
    pickled = torch_files.dumps({"epoch": 3, key: lying()})
    torch_files.write_zip(tmp_path / "w.pth", pickled, {"0": TENSORS["w"].tobytes()})
    np.testing.assert_array_equal(formats.read(tmp_path / "w.pth")["w"], TENSORS["w"])


class Options(collections.OrderedDict):
    """A custom dict class."""


BESIDE = {
    "namespace": argparse.Namespace(lr=0.1, sizes=[1, 2]),
    "numpy scalar": np.float64(3),
    "numpy array": np.arange(3),
    "dict class": Options(lr=0.1),
    "path": Path("/data"),
    "set": {1, 2},
    "deque": collections.deque([1, 2]),
    "enum": zipfile.Path,
    "counter": collections.Counter("aab"),
    "paths as keys": {Path("/data"): 1},
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("beside", BESIDE)
def test_what_stands_beside_the_tensors_is_never_made(beside: str, legacy: bool, tmp_path: Path) -> None:
    state = {"w": torch_files.tensor_call(TENSORS["w"], "0", legacy)}
    checkpoint = {"args": torch_files.Real(BESIDE[beside]), "epoch": 3, "model": state}
    data = TENSORS["w"].tobytes()
    path = tmp_path / "checkpoint.pth.tar"
    if legacy:
        torch_files.write_legacy(path, torch_files.dumps(checkpoint), {"0": (6, data)})
    else:
        torch_files.write_zip(path, torch_files.dumps(checkpoint), {"0": data})
    contents = formats.read_contents(path)
    np.testing.assert_array_equal(contents.tensors["w"], TENSORS["w"])
    assert contents.notes == ("took the weights under 'model'",)


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


def build(target: bytes, attribute: str, value: bytes) -> bytes:
    """Opcodes that set an attribute of the object that `target` pushes, without its `__dict__`."""
    slots = pickle.EMPTY_DICT + torch_files.dumps(attribute)[2:-1] + value + pickle.SETITEM
    return target + pickle.NONE + slots + pickle.TUPLE2 + pickle.BUILD


@pytest.mark.parametrize("name", ["os.system", "torch._utils._rebuild_tensor_v2", "collections.OrderedDict"])
def test_a_pickle_cannot_change_what_it_is_given(name: str, tmp_path: Path) -> None:
    module, _, attribute = name.rpartition(".")
    target = torch_files.dumps(Global(module, attribute))[2:-1]
    opcodes = build(target, "__iter__", target)
    torch_files.write_zip(tmp_path / "w.pth", b"\x80\x02" + opcodes + b".", {})
    with pytest.raises(UserError):
        formats.read(tmp_path / "w.pth")
    # Nor through its `__dict__`.
    state = torch_files.dumps({"evil": 1})[2:-1]
    torch_files.write_zip(tmp_path / "w.pth", b"\x80\x02" + target + state + pickle.BUILD + b".", {})
    with pytest.raises(UserError):
        formats.read(tmp_path / "w.pth")
    assert not hasattr(unpickler.FUNCTIONS["torch._utils._rebuild_tensor_v2"], "evil")


@pytest.mark.parametrize(
    ("opcodes", "reason"),
    [
        (pickle.LONG_BINPUT + b"\xff\xff\xff\x7f", "claims a table of 2147483647 entries"),
        (pickle.PUT + b"2147483647\n", "claims a table of 2147483647 entries"),
        (pickle.BYTEARRAY8 + (2**40).to_bytes(8, "little"), "expected 1099511627776 bytes"),
        (pickle.BINBYTES8 + (2**40).to_bytes(8, "little"), "expected 1099511627776 bytes"),
        (pickle.BINUNICODE8 + (2**40).to_bytes(8, "little"), "expected 1099511627776 bytes"),
    ],
)
def test_a_pickle_that_claims_more_than_it_holds(opcodes: bytes, reason: str, tmp_path: Path) -> None:
    pickled = b"\x80\x02" + pickle.EMPTY_DICT + opcodes + b"."
    torch_files.write_zip(tmp_path / "zip.pth", pickled, {})
    torch_files.write_legacy(tmp_path / "legacy.pth", pickled, {})
    for file in ("zip.pth", "legacy.pth"):
        with pytest.raises(UserError, match=reason):
            formats.read(tmp_path / file)


def test_a_million_unknown_names_are_too_many(tmp_path: Path) -> None:
    state = [Global("evil", f"n{i}") for i in range(unpickler.MOST_NAMES + 1)]
    torch_files.write_zip(tmp_path / "w.pth", torch_files.dumps(state), {})
    with pytest.raises(UserError, match=r"pickle asks for evil\.n1000"):
        formats.read(tmp_path / "w.pth")


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


def test_an_archive_that_would_unfold_is_refused(tmp_path: Path) -> None:
    zeros = np.zeros(10**6, np.float32)
    pickled = torch_files.dumps({"w": torch_files.tensor_call(zeros, "0", False)})
    packed = {"compression": zipfile.ZIP_DEFLATED}
    torch_files.write_zip(tmp_path / "w.pth", pickled, {"0": zeros.tobytes()}, **packed)
    with pytest.raises(UserError, match="compressed"):
        formats.read(tmp_path / "w.pth")


def test_big_endian_and_foreign_archives_are_refused(tmp_path: Path) -> None:
    for file, members, reason in (
        ("big.pth", {"a/data.pkl": torch_files.dumps({}), "a/byteorder": b"big"}, "big-endian"),
        ("foreign.pth", {"readme.txt": b""}, r"no torch\.save archive"),
        ("two.pth", {"a/data.pkl": b"", "b/data.pkl": b""}, r"one data\.pkl"),
    ):
        with zipfile.ZipFile(tmp_path / file, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        with pytest.raises(UserError, match=reason):
            formats.read(tmp_path / file)


def test_lies_in_the_old_container_are_refused(tmp_path: Path) -> None:
    pickled = torch_files.dumps({"w": torch_files.tensor_call(TENSORS["w"], "0", True)})
    data = TENSORS["w"].tobytes()
    for storages, reason in (
        ({"0": (2**62, data)}, "reaches past the end: truncated"),
        ({"0": (5, data[:20])}, "storage has 20 bytes, not 6"),
        ({"1": (6, data)}, "storage '1' belongs to no tensor"),
        ({}, "KeyError|'0'"),
        ({"0": (6, data + b"x")}, "1 bytes follow the last storage"),
    ):
        torch_files.write_legacy(tmp_path / "w.pth", pickled, storages)
        with pytest.raises(UserError, match=reason):
            formats.read(tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes(torch_files.dumps(1) * 4)
    with pytest.raises(UserError, match="neither a zip archive nor the magic number"):
        formats.read(tmp_path / "w.pth")


# npz


def test_an_npz_with_a_pickle_inside_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", w=np.array([Evil(tmp_path / "proof")], object), allow_pickle=True)
    with pytest.raises(UserError, match="holds Python objects"):
        formats.read(tmp_path / "w.npz")
    assert not (tmp_path / "proof").exists()


def npy(header: str, data: bytes, version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    ("member", "data", "reason"),
    [
        ("w.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", bytes(8)), "8 bytes do not fit"),
        ("w.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}", bytes(8)), "do not fit"),
        ("w.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", bytes(8)), "w.npz"),
        ("w.npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", bytes(8)), "Python objects"),
        ("w.npy", npy("__import__('os')", b""), "w.npz"),
        ("w.npy", npy("{}", b"", b"\x09\x00"), "version"),
        ("w.npy", b"no array", "magic"),
        ("w.txt", b"", "is no .npy file"),
    ],
)  # fmt: skip
def test_lying_npz_members_are_refused(member: str, data: bytes, reason: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr(member, data)
    with pytest.raises(UserError, match=reason):
        formats.read(tmp_path / "w.npz")


def test_fortran_order_is_honored(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", w=np.asfortranarray(TENSORS["w"]))
    np.testing.assert_array_equal(formats.read(tmp_path / "w.npz")["w"], TENSORS["w"])


def test_equal_tensors_make_equal_files(tmp_path):
    """The library itself writes the entries of the metadata in any order."""
    tensors = {"é": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": np.zeros((), np.int32)}
    written = set()
    for number in range(12):
        path = tmp_path / f"{number}.safetensors"
        save_safetensors(path, tensors)
        written.add(path.read_bytes())
    assert len(written) == 1
    read = formats.read(path)
    assert all(np.array_equal(read[name], value) for name, value in tensors.items())
