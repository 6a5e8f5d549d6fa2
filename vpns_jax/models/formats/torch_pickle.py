"""State dicts as `torch.save` writes them, read without PyTorch and without running what they contain.

Two containers, one pickle. Since PyTorch 1.6: a zip archive `NAME/data.pkl` with the storages beside it as
`NAME/data/KEY`. Before (torchvision's VGGs are such files): four pickles in a row (magic number, protocol,
facts about the writer, the object), then a pickled list of storage keys, then each storage as a count of
elements and its bytes.

The pickle refers to storages by persistent ids and rebuilds tensors by calling functions of torch. The
unpickler here knows those few names and nothing else; and what it makes of them are inert records, turned
into arrays only after the last opcode has run, when every number has been checked.
"""

import collections
import dataclasses
import math
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

DTYPES: dict[str, np.dtype] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
# Keys under which training scripts nest the weights.
NESTED = ("state_dict", "model")


@dataclasses.dataclass
class _Storage:
    """What a persistent id says: `count` elements of the type named, under `key`."""

    kind: Any
    key: Any
    count: Any


@dataclasses.dataclass
class _Tensor:
    """What a rebuilding function was called with; nothing in it has been checked."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


class _Unpickler(pickle.Unpickler):
    """An unpickler that can build dicts, lists, numbers, strings and records of tensors, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return self._tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return self._parameter
        if module == "torch" and name in DTYPES:
            return name
        raise ValueError(f"pickle asks for {module}.{name}; only tensors are read, nothing is run: refused")

    def persistent_load(self, pid: Any) -> _Storage:
        # ("storage", type, key, device, count), in old files also a view: None in all that are met.
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or any(pid[5:]):
            raise ValueError(f"persistent id {str(pid)[:100]!r} names no tensor storage")
        return _Storage(pid[1], pid[2], pid[4])

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
        return _Tensor(storage, offset, size, stride)

    def _parameter(self, data: Any, *_: Any) -> Any:
        return data


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a state dict by name; one nested under "state_dict" or "model" is found there.

    Raises:
      ValueError: if the pickle asks for anything but tensors, or a tensor does not lie within its storage.
    """
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            return _read_zip(file)
        file.seek(0)
        return _read_legacy(file)


def _read_zip(file: BinaryIO) -> dict[str, np.ndarray]:
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        if len(infos) != len(archive.infolist()):
            raise ValueError("two members of one name")
        roots = [name.removesuffix("/data.pkl") for name in infos if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError("no torch.save archive: it must hold one data.pkl")
        # Stored and no longer than the file in sum: an archive cannot unfold into more than it is.
        if any(i.compress_type != zipfile.ZIP_STORED for i in infos.values()):
            raise ValueError("compressed members, which torch.save does not write")
        if sum(i.file_size for i in infos.values()) > size:
            raise ValueError("members are longer than the file: truncated, or overlapping")
        order = f"{roots[0]}/byteorder"
        if order in infos and archive.read(order) != b"little":
            raise ValueError("written in big-endian byte order, which is not read")
        with archive.open(f"{roots[0]}/data.pkl") as pickled:
            tensors = _tensor_records(_Unpickler(pickled).load())

        def read_storage(key: str) -> bytes:
            name = f"{roots[0]}/data/{key}"
            if name not in infos:
                raise ValueError(f"storage {key!r} is not in the archive")
            return archive.read(name)

        return _build(tensors, read_storage)


def _load(file: BinaryIO) -> Any:
    """The next pickle in the file. What Python 2 wrote as its strings is text."""
    return _Unpickler(file, encoding="utf-8").load()


def _read_legacy(file: BinaryIO) -> dict[str, np.ndarray]:
    size = os.fstat(file.fileno()).st_size
    if _load(file) != LEGACY_MAGIC:
        raise ValueError("no file of torch.save: neither a zip archive nor the magic number")
    if _load(file) != LEGACY_PROTOCOL:
        raise ValueError("an unknown version of torch.save's old format")
    system = _load(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("not written in little-endian byte order")
    tensors = _tensor_records(_load(file))
    itemsizes = {t.storage.key: DTYPES[t.storage.kind].itemsize for t in tensors.values()}
    storages: dict[str, bytes] = {}
    for key in _load(file):
        if key not in itemsizes:
            raise ValueError(f"storage {key!r} belongs to no tensor")
        count = file.read(8)
        length = int.from_bytes(count, "little") * itemsizes[key]
        if len(count) < 8 or length > size - file.tell():
            raise ValueError(f"storage {key!r} reaches past the end: truncated?")
        storages[key] = file.read(length)
    if file.tell() != size:
        raise ValueError(f"{size - file.tell()} bytes follow the last storage")
    return _build(tensors, storages.__getitem__)


def _tensor_records(loaded: Any) -> dict[str, _Tensor]:
    """The records of the state dict in `loaded`, their types (not yet their bounds) checked."""
    for key in NESTED:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise ValueError(f"holds a {type(loaded).__name__}, not a dict of tensors")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise ValueError(f"entry {str(name)[:100]!r} is no tensor; a plain state dict is expected")
        storage = tensor.storage
        if not isinstance(storage, _Storage) or storage.kind not in DTYPES or type(storage.key) is not str:
            raise ValueError(f"tensor {name!r} has no proper storage")
        numbers = (storage.count, tensor.offset, *tensor.size, *tensor.stride)
        if any(type(n) is not int or n < 0 for n in numbers) or len(tensor.size) != len(tensor.stride):
            raise ValueError(f"tensor {name!r}: size, stride and offset must be integers >= 0")
    return dict(loaded)


def _build(tensors: dict[str, _Tensor], read_storage: Callable[[str], bytes]) -> dict[str, np.ndarray]:
    """Arrays from records; tensors that share a storage share its bytes."""
    raw: dict[str, bytes] = {}
    arrays = {}
    for name, tensor in tensors.items():
        storage, dtype = tensor.storage, DTYPES[tensor.storage.kind]
        if storage.key not in raw:
            raw[storage.key] = read_storage(storage.key)
        data = raw[storage.key]
        if len(data) != storage.count * dtype.itemsize:
            raise ValueError(f"tensor {name!r}: storage has {len(data)} bytes, not {storage.count} {dtype}")
        reach = sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
        count = math.prod(tensor.size)
        if count > storage.count or (count and tensor.offset + reach >= storage.count):
            raise ValueError(f"tensor {name!r} of shape {tuple(tensor.size)} reaches past its storage")
        flat = np.frombuffer(data, dtype)[tensor.offset if count else 0 :]
        strides = [step * dtype.itemsize for step in tensor.stride]
        arrays[name] = np.lib.stride_tricks.as_strided(flat, tensor.size, strides, writeable=False)
    return arrays
