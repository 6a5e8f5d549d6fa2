"""The safetensors format, read and written by its own library. Some faults that the library ignores are refused."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from vpns_jax.errors import UserError
from vpns_jax.files import digest_arrays

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
FIELDS = {"dtype", "shape", "data_offsets"}
# The format has no checksum. `save_safetensors` writes one under this key of the metadata, which other readers ignore.
CHECKSUM = "vpns_jax_sha256"
EMPTY: Mapping[str, str] = {}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads a safetensors file.

    Args:
      path: an existing file.

    Returns:
      Fresh arrays by name.

    Raises:
      ValueError: the header is malformed or has unknown fields, its tensors do not fill the rest of the file
        exactly, without gap or overlap, or they do not match the checksum of `save_safetensors`.
    """
    try:
        with safetensors.safe_open(path, framework="np") as file:
            _check_header(path)
            names = file.keys()  # The library's object is no dict: iterating over it does not work.
            tensors = {name: file.get_tensor(name) for name in names}
            checksum = (file.metadata() or {}).get(CHECKSUM)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{error}; truncated or damaged?") from error
    if checksum is not None and checksum != digest_arrays(sorted(tensors.items())):
        raise ValueError("it is damaged or was edited: it does not match its checksum; remove it, or restore it")
    return tensors


def _check_header(path: Path) -> None:
    """Refuses faults in a header that the library silently ignores."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length), object_pairs_hook=_no_duplicates)
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if set(entry) != FIELDS:
            raise ValueError(f"tensor {name!r}: header entry must hold dtype, shape and data_offsets")
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"tensor {name!r}: dtype {entry['dtype']!r} is not read; known: {', '.join(DTYPES)}")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without duplicate names: of two entries with one name, the parser would drop the first."""
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError("header names an entry twice")
    return dict(pairs)


def _sort_metadata(path: Path) -> None:
    """Puts the entries of the metadata in order: the library writes them in another one each time."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        if len(ordered) != length:
            raise ValueError(f"{path}: the header takes {len(ordered)} bytes and not {length}")
        file.seek(8)
        file.write(ordered)


def in_c_order(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors whose memory is in C order: safetensors writes an array's memory without regard to its strides."""
    return {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}


def save_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] = EMPTY
) -> None:
    """Writes tensors to a safetensors file with a checksum, whole or not at all.

    Args:
      path: the file; its folder must exist. An old file is replaced.
      tensors: arrays by name, of the dtypes in `DTYPES`. Equal tensors make equal files.
      metadata: what else is to stand in the header.

    Raises:
      UserError: a tensor has a dtype that `read_safetensors` does not read.
      ValueError: the library wrote a header that takes another number of bytes once it is in order.
      OSError, safetensors.SafetensorError: the disk refuses; `storage.storage_errors` makes one line of it.
    """
    arrays = in_c_order(dict(sorted(tensors.items())))
    for name, array in arrays.items():
        if array.dtype not in DTYPES.values():
            raise UserError(f"{path}: tensor {name!r} has dtype {array.dtype}, which this library does not read")
    target = Path(path)
    unfinished = target.with_name(f"{target.name}.part")
    # "pt" tells other readers that the tensors have torch's layouts.
    header = {"format": "pt", CHECKSUM: digest_arrays(arrays.items()), **metadata}
    try:
        safetensors.numpy.save_file(arrays, unfinished, metadata=header)
        _sort_metadata(unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
