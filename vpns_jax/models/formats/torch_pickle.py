"""State dicts of `torch.save`, read without PyTorch and without running any code that they contain.

There are two containers for the same pickle. Since PyTorch 1.6, a file is a zip archive: `NAME/data.pkl`, with the
storages beside it as `NAME/data/KEY`. Older files (torchvision's VGGs are such files) hold four pickles in a row (magic
number, protocol, facts about the writer, the object), then a pickled list of storage keys, then each storage as a
count of elements and its bytes.

The pickle refers to storages by persistent ids and rebuilds tensors by calling functions of torch. `Unpickler` makes
inert records instead. They become arrays here, after the last opcode has run and every number has been checked.
"""

import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vpns_jax.models.formats import state_dict
from vpns_jax.models.formats.contents import Contents
from vpns_jax.models.formats.unpickler import DTYPES, TensorRecord, Unpickler

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


def read_torch(path: Path, weights_key: str = "") -> Contents:
    """Reads the state dict of a checkpoint.

    Args:
      path: an existing file.
      weights_key: as for `state_dict.find`.

    Returns:
      Its tensors by name, the types of other entries, and which entry was chosen.

    Raises:
      ValueError: the file is damaged, has no state dict, or has a tensor that does not lie within its storage.
    """
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            return _read_zip(file, weights_key)
        file.seek(0)
        return _read_legacy(file, weights_key)


def _read_zip(file: BinaryIO, weights_key: str) -> Contents:
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        if len(infos) != len(archive.infolist()):
            raise ValueError("two members of one name")
        roots = [name.removesuffix("/data.pkl") for name in infos if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError("no torch.save archive: it must hold one data.pkl")
        if f"{roots[0]}/constants.pkl" in infos:
            raise ValueError("holds a TorchScript program, not a state dict; save model.state_dict()")
        # No compression and no more bytes than the file: so an archive cannot unpack into more than its size.
        if any(i.compress_type != zipfile.ZIP_STORED for i in infos.values()):
            raise ValueError("compressed members, which torch.save does not write")
        if sum(i.file_size for i in infos.values()) > size:
            raise ValueError("members are longer than the file: truncated, or overlapping")
        order = f"{roots[0]}/byteorder"
        if order in infos and archive.read(order) != b"little":
            raise ValueError("written in big-endian byte order, which is not read")
        with archive.open(f"{roots[0]}/data.pkl") as pickled:
            tensors = state_dict.find(Unpickler(pickled).load(), weights_key)

        def read_storage(key: str) -> bytes:
            name = f"{roots[0]}/data/{key}"
            if name not in infos:
                raise ValueError(f"storage {key!r} is not in the archive")
            return archive.read(name)

        return _contents(tensors, _build(tensors.records, read_storage))


def _load(file: BinaryIO) -> Any:
    """The next pickle in the file, which must hold plain values. Strings of Python 2 are read as text."""
    return Unpickler(file, plain=True, encoding="utf-8").load()


def _read_legacy(file: BinaryIO, weights_key: str) -> Contents:
    size = os.fstat(file.fileno()).st_size
    if _load(file) != LEGACY_MAGIC:
        raise ValueError("no file of torch.save: neither a zip archive nor the magic number")
    if _load(file) != LEGACY_PROTOCOL:
        raise ValueError("an unknown version of torch.save's old format")
    system = _load(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("not written in little-endian byte order")
    unpickler = Unpickler(file, encoding="utf-8")
    tensors = state_dict.find(unpickler.load(), weights_key)
    wanted = {t.storage.key for t in tensors.records.values()}
    storages: dict[str, bytes] = {}
    for key in _load(file):
        # An optimizer's storage is skipped, but its length is needed: the next storage begins at its end.
        if key not in unpickler.itemsizes:
            raise ValueError(f"storage {key!r} belongs to no tensor")
        count = file.read(8)
        length = int.from_bytes(count, "little") * unpickler.itemsizes[key]
        if len(count) < 8 or length > size - file.tell():
            raise ValueError(f"storage {key!r} reaches past the end: truncated?")
        data = file.read(length)
        if key in wanted:
            storages[key] = data
    if file.tell() != size:
        raise ValueError(f"{size - file.tell()} bytes follow the last storage")
    return _contents(tensors, _build(tensors.records, storages.__getitem__))


def _build(tensors: dict[str, TensorRecord], read_storage: Callable[[str], bytes]) -> dict[str, np.ndarray]:
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


def _contents(loaded: state_dict.StateDict, tensors: dict[str, np.ndarray]) -> Contents:
    return Contents(tensors, others=loaded.others, notes=loaded.notes, key_used=loaded.key_used)
