"""The safetensors format: an 8-byte length, a JSON header of that length, then the tensors' bytes.

Written against the format's description (https://github.com/huggingface/safetensors#format). NumPy alone.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vpns_jax.errors import UserError

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
MAX_HEADER_BYTES = 100_000_000


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors by name, as read-only views of the mapped file.

    Raises:
      ValueError: unless the header is well-formed and its tensors fill the rest of the file exactly, without
        gap or overlap.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        if size < 8 or start > size or start > MAX_HEADER_BYTES:
            raise ValueError(f"header of {start - 8} bytes does not fit a file of {size} bytes: truncated?")
        header = json.loads(file.read(start - 8).decode("utf-8"), object_pairs_hook=_no_duplicates)
    if not isinstance(header, dict):
        raise ValueError("header is no JSON object")
    header.pop("__metadata__", None)
    entries = {name: _parse_entry(name, entry) for name, entry in header.items()}

    position = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != position:
            raise ValueError(f"tensor {name!r} begins at byte {begin}, expected {position}: gap or overlap")
        position = end
    if start + position != size:
        raise ValueError(f"tensors end at byte {start + position} of a file of {size} bytes: truncated?")
    data = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    return {
        name: np.asarray(data[start + begin : start + end]).view(dtype).reshape(shape)
        for name, (dtype, shape, begin, end) in entries.items()
    }


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; two entries of one name would hide one of them."""
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError("header names an entry twice")
    return dict(pairs)


def _parse_entry(name: str, entry: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """(dtype, shape, begin, end) of one tensor, whose bytes must be as many as its shape says."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r}: header entry must hold dtype, shape and data_offsets")
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"tensor {name!r}: unknown dtype {entry['dtype']!r}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError(f"tensor {name!r}: shape and data_offsets must be lists of integers >= 0")
    dtype = DTYPES[entry["dtype"]]
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"tensor {name!r}: data_offsets {offsets} do not fit {dtype.name} of shape {shape}")
    return dtype, tuple(shape), offsets[0], offsets[1]


def save_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors to a safetensors file, whole or not at all.

    Args:
      path: the file; its folder must exist. An old file is replaced.
      tensors: arrays by name, of the dtypes the format has; written in order of name, so that equal tensors
        make equal files.

    Raises:
      UserError: for a dtype the format does not have.
    """
    codes = {dtype: code for code, dtype in DTYPES.items()}
    # "pt" tells other readers that layouts are torch's.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name in sorted(tensors):
        tensor = np.asarray(tensors[name])
        if tensor.dtype not in codes:
            raise UserError(f"{path}: tensor {name!r} has dtype {tensor.dtype}, which safetensors cannot hold")
        end = position + tensor.nbytes
        header[name] = {
            "dtype": codes[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target = Path(path)
    unfinished = target.with_name(f"{target.name}.part")
    with unfinished.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(tensors):
            file.write(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)
    unfinished.replace(target)
