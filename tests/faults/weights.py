"""Damaged weight files of the tiny network: loading must give what was saved, or an error."""

import functools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy

from tests.faults.tally import Case, Outcome
from tests.models import torch_files
from tests.training import tiny
from vpns_jax import models, trees

SEED = 2
PAGES = (
    b"<!DOCTYPE html><html>sign in</html>",
    b"<html><body>404",
    b"<?xml version='1.0'?><Error/>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
    b"",
    b"\0" * 1000,
    json.dumps({"error": "not found"}).encode(),
)
WRITERS = {
    "w.safetensors": models.save_safetensors,
    "foreign.safetensors": lambda path, tensors: safetensors.numpy.save_file(tensors, path),
    "w.pth": torch_files.save,
    "legacy.pth": functools.partial(torch_files.save, legacy=True),
    "w.npz": lambda path, tensors: np.savez(path, **tensors),
    "packed.npz": lambda path, tensors: np.savez_compressed(path, **tensors),
}


def _flip(raw: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(raw)
    damaged[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def _cut(raw: bytes, draw: random.Random) -> bytes:
    return raw[: draw.randrange(len(raw))]


def _page(raw: bytes, draw: random.Random) -> bytes:
    return draw.choice(PAGES)


def _longer(raw: bytes, draw: random.Random) -> bytes:
    return raw + draw.randbytes(draw.randrange(1, 50))


def _other_tensors(tensors: dict[str, np.ndarray], draw: random.Random) -> tuple[str, dict[str, np.ndarray]]:
    """Makes tensors that do not fit: one is missing, renamed, extra, not finite, or has another shape or dtype."""
    name = draw.choice([key for key, value in tensors.items() if value.dtype == np.float32])
    value, rest = tensors[name], {k: v for k, v in tensors.items() if k != name}
    changes = {
        "missing": {},
        "renamed": {f"{name}_": value},
        "renamed to what is long": {name + "x" * 5000: value},
        "of another shape": {name: np.zeros((*value.shape, 2), np.float32)},
        "float64": {name: value.astype(np.float64)},
        "not finite": {name: np.full_like(value, np.nan)},
        "one too many": {name: value, "aux.weight": value},
    }
    kind = draw.choice(sorted(changes))
    return f"{name} {kind}", rest | changes[kind]


def cases(number: int, scratch: Path) -> Iterator[Case]:
    """Makes the cases; the tiny network must be registered."""
    draw, original = random.Random(SEED), jax.device_get(tiny.variables())
    tensors = models.export("tiny", original)
    saved = {name: _written(write, scratch / name, tensors) for name, write in WRITERS.items()}
    for _ in range(number):
        file = draw.choice(sorted(WRITERS))
        change = draw.choice((_flip, _flip, _flip, _cut, _page, _longer, None))
        if change is None:
            what, others = _other_tensors(tensors, draw)
            WRITERS[file](scratch / file, others)
        else:
            what = change.__name__
            (scratch / file).write_bytes(change(saved[file], draw))
        yield Case(f"{file}: {what}", functools.partial(_load, scratch / file, original, tensors))


def _written(write, path: Path, tensors: dict[str, np.ndarray]) -> bytes:
    write(path, tensors)
    return path.read_bytes()


def _load(path: Path, original, tensors: dict[str, np.ndarray]) -> Outcome:
    loaded = trees.flatten(models.load_pretrained("tiny", path, num_classes=tiny.SOURCE_CLASSES, image_size=tiny.SIZE))
    expected = trees.flatten(original)
    if loaded.keys() == expected.keys() and all(np.array_equal(loaded[key], expected[key]) for key in expected):
        return Outcome.RIGHT
    return Outcome.UNKNOWABLE if _differs_in_numbers(path, tensors) else Outcome.SILENT


def _differs_in_numbers(path: Path, tensors: dict[str, np.ndarray]) -> bool:
    """Returns whether only bytes of a tensor changed, in one of the two formats without a checksum."""
    if path.name not in ("foreign.safetensors", "legacy.pth"):
        return False
    whole = _written(WRITERS[path.name], path.with_name(f"whole-{path.name}"), tensors)
    raw = path.read_bytes()
    if len(raw) != len(whole):
        return False
    (place,) = np.flatnonzero(np.frombuffer(raw, np.uint8) != np.frombuffer(whole, np.uint8))
    data = sum(value.nbytes for value in tensors.values())
    # In old PyTorch files the sizes of the storages, 8 bytes each, are between the tensors.
    begin = len(whole) - data - 8 * len(tensors) * (path.name == "legacy.pth")
    return bool(place >= begin)
