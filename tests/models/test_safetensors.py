"""The reader and writer of safetensors: equal to the library, and strict about headers and damage."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from tests.models.weight_files import TENSORS
from vpns_jax.errors import UserError
from vpns_jax.models import formats, save_safetensors


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
