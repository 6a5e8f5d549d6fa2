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
        ("w.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", bytes(8)), "do not fit"),
        ("w.npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", bytes(8)), "Python objects"),
        ("w.npy", npy("__import__('os')", b""), "malformed"),
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


def test_memory_is_bounded_by_the_size_of_the_file(tmp_path: Path) -> None:
    """Ten megabytes of zeros take ten kilobytes; without the bound, a few megabytes take many gigabytes."""
    path = tmp_path / "w.npz"
    np.savez_compressed(path, w=np.zeros(10**7, np.uint8))
    with pytest.raises(UserError, match=r"10,000,128 bytes in \d+,\d+; .*save it by np\.savez"):
        formats.read(path)
    np.savez(path, w=np.zeros(10**7, np.uint8))
    assert formats.read(path)["w"].size == 10**7


def test_a_network_with_one_percent_of_its_weights_stays_below_the_bound(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = np.where(rng.random(10**6) < 0.01, rng.normal(size=10**6), 0).astype(np.float32)
    np.savez_compressed(tmp_path / "w.npz", w=weights)
    np.testing.assert_array_equal(formats.read(tmp_path / "w.npz")["w"], weights)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_numpy_does_not_write_is_refused(method: int, tmp_path: Path) -> None:
    member = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", bytes(8))
    with zipfile.ZipFile(tmp_path / "w.npz", "w", method) as archive:
        archive.writestr("w.npy", member)
    with pytest.raises(UserError, match="compression that NumPy does not write"):
        formats.read(tmp_path / "w.npz")
