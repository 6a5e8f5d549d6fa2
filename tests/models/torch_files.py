"""Writes state dicts as `torch.save` does, opcode by opcode, without PyTorch.

`torch.load(..., weights_only=True)` of PyTorch 2.13 can read these files (tried by hand). `Call` and `Global` make
pickles that `torch.save` would never write.
"""

import dataclasses
import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


@dataclasses.dataclass
class Global:
    """A name that the reader must look up."""

    module: str
    name: str


@dataclasses.dataclass
class Call:
    """A function that the reader must call."""

    function: Any
    arguments: tuple[Any, ...]


@dataclasses.dataclass
class Persistent:
    """An object that the reader must find by its persistent id."""

    pid: tuple[Any, ...]


@dataclasses.dataclass
class Real:
    """Any value, pickled as Python does."""

    value: Any


def tensor_call(array: np.ndarray, key: str, legacy: bool, **lies: Any) -> Call:
    """The call that rebuilds a contiguous tensor; `lies` replace count, offset, size or stride."""
    strides = tuple(s // array.itemsize for s in array.strides)
    facts = {"count": array.size, "offset": 0, "size": array.shape, "stride": strides, **lies}
    storage = ("storage", Global("torch", STORAGES[array.dtype.name]), key, "cpu", facts["count"])
    return Call(
        Global("torch._utils", "_rebuild_tensor_v2"),
        (
            Persistent((*storage, None) if legacy else storage),
            facts["offset"],
            facts["size"],
            facts["stride"],
            False,
            Call(Global("collections", "OrderedDict"), ()),
        ),
    )


def dumps(value: Any) -> bytes:
    """A pickle of protocol 2."""
    return b"\x80\x02" + _emit(value) + b"."


def _emit(value: Any) -> bytes:
    match value:
        case bool():
            return pickle.NEWTRUE if value else pickle.NEWFALSE
        case None:
            return pickle.NONE
        case int() if -(2**31) <= value < 2**31:
            return pickle.BININT + struct.pack("<i", value)
        case int():
            data = pickle.encode_long(value)
            return pickle.LONG1 + bytes([len(data)]) + data
        case str():
            return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return pickle.MARK + b"".join(map(_emit, value)) + pickle.TUPLE
        case list():
            return pickle.EMPTY_LIST + pickle.MARK + b"".join(map(_emit, value)) + pickle.APPENDS
        case dict():
            items = b"".join(_emit(k) + _emit(v) for k, v in value.items())
            return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
        case Global(module, name):
            return pickle.GLOBAL + f"{module}\n{name}\n".encode()
        case Call(function, arguments):
            return _emit(function) + _emit(arguments) + pickle.REDUCE
        case Persistent(pid):
            return _emit(pid) + pickle.BINPERSID
        case Real(value):
            # Without the two bytes of the protocol and the STOP opcode.
            return pickle.dumps(value, 2)[2:-1]
    raise TypeError(type(value))


def write_zip(path: Path, pickled: bytes, storages: Mapping[str, bytes], **options: Any) -> None:
    """A pickle in the archive format of present versions of `torch.save`."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", b"little")
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3\n")


def write_legacy(path: Path, pickled: bytes, storages: Mapping[str, tuple[int, bytes]]) -> None:
    """A file of `torch.save` before 1.6: pickles in a row, then counts and bytes of the storages."""
    out = io.BytesIO()
    out.write(dumps(0x1950A86A20F9469CFC6C) + dumps(1001))
    out.write(dumps({"protocol_version": 1001, "little_endian": True}))
    out.write(pickled + dumps(list(storages)))
    for count, data in storages.values():
        out.write(count.to_bytes(8, "little") + data)
    path.write_bytes(out.getvalue())


def save(path: Path, tensors: Mapping[str, np.ndarray], *, legacy: bool = False) -> None:
    """Writes a state dict to disk."""
    keyed = {str(i): np.ascontiguousarray(a) for i, a in enumerate(tensors.values())}
    state = {
        name: tensor_call(keyed[str(i)].reshape(a.shape), str(i), legacy) for i, (name, a) in enumerate(tensors.items())
    }
    if legacy:
        write_legacy(path, dumps(state), {key: (a.size, a.tobytes()) for key, a in keyed.items()})
    else:
        write_zip(path, dumps(state), {key: a.tobytes() for key, a in keyed.items()})
