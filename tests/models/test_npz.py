"""The reader of npz files: what it refuses, and the order of an array's axes."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.models.weight_files import TENSORS, Evil
from vpns_jax.errors import UserError
from vpns_jax.models import formats


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
