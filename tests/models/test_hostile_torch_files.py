"""Hostile or broken torch files: nothing in them is run, and none that lies about its tensors is read."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import torch_files
from tests.models.torch_files import Call, Global, Persistent
from tests.models.weight_files import TENSORS, Evil, lying
from vpns_jax.errors import UserError
from vpns_jax.models import formats
from vpns_jax.models.formats import unpickler


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


def build(target: bytes, attribute: str, value: bytes) -> bytes:
    """Opcodes that set an attribute of the object that `target` pushes, without its `__dict__`."""
    slots = pickle.EMPTY_DICT + torch_files.dumps(attribute)[2:-1] + value + pickle.SETITEM
    return target + pickle.NONE + slots + pickle.TUPLE2 + pickle.BUILD


@pytest.mark.parametrize("by_slots", [True, False])
@pytest.mark.parametrize(
    ("name", "slots_reason", "dict_reason"),
    [
        ("os.system", "missing 1 required positional argument", "missing 1 required positional argument"),
        ("torch._utils._rebuild_tensor_v2", "changes a function: refused", "no attribute '__dict__'"),
        ("collections.OrderedDict", "immutable type", "does not support item assignment"),
    ],
)
def test_a_pickle_cannot_change_what_it_is_given(
    name: str, slots_reason: str, dict_reason: str, by_slots: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor through its `__dict__`. The weights behind the attempt would be read if it succeeded."""
    given: list[Any] = []
    find_class = unpickler.Unpickler.find_class

    def watched(self: unpickler.Unpickler, *asked: str) -> Any:
        given.append(find_class(self, *asked))
        return given[-1]

    monkeypatch.setattr(unpickler.Unpickler, "find_class", watched)
    module, _, attribute = name.rpartition(".")
    target = torch_files.dumps(Global(module, attribute))[2:-1]
    if by_slots:
        attempt, reason = build(target, "evil", target), slots_reason
    else:
        attempt, reason = target + torch_files.dumps({"evil": 1})[2:-1] + pickle.BUILD, dict_reason
    pickled = b"\x80\x02" + attempt + pickle.POP + torch_files.dumps(lying())[2:]
    torch_files.write_zip(tmp_path / "w.pth", pickled, {"0": TENSORS["w"].tobytes()})
    with pytest.raises(UserError, match=reason):
        formats.read(tmp_path / "w.pth")
    assert given
    assert not any(hasattr(each, "evil") for each in given)


def test_placeholders_are_sealed() -> None:
    with pytest.raises(ValueError, match="changes a class: refused"):
        unpickler.Placeholder.asked = "os.system"


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


def test_attributes_count_as_unknown_names(tmp_path: Path) -> None:
    names = (str(i) for i in range(unpickler.MOST_NAMES + 1))
    state = [Call(Global("builtins", "getattr"), (Global("evil", "Class"), name)) for name in names]
    torch_files.write_zip(tmp_path / "w.pth", torch_files.dumps(state), {})
    with pytest.raises(UserError, match=r"pickle asks for evil\.Class\.999;"):
        formats.read(tmp_path / "w.pth")


def test_long_names_of_attributes_are_cut(tmp_path: Path) -> None:
    """Names that grow with each attribute would take more memory than the file."""
    asked: Any = Global("evil", "Class")
    for _ in range(20):
        asked = Call(Global("builtins", "getattr"), (asked, "x" * 1000))
    pickled = torch_files.dumps(lying() | {"args": Call(asked, ())})
    torch_files.write_zip(tmp_path / "w.pth", pickled, {"0": TENSORS["w"].tobytes()})
    name = formats.read_contents(tmp_path / "w.pth").others["args"]
    assert name.startswith("evil.Class.xxx")
    assert len(name) == unpickler.LONGEST_NAME


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
