"""Readers of weight files: what every format has in common, whole, truncated, damaged or of another kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import torch_files
from tests.models.weight_files import TENSORS
from vpns_jax.errors import UserError
from vpns_jax.models import formats, save_safetensors


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
