"""An unpickler that builds plain values and records of tensors, and runs nothing.

A pickle names what is to be called. The few functions of torch that rebuild tensors make inert records here;
every other name, whatever it is, becomes a placeholder: a class of ours that is never imported and does nothing
with what it is given. So a checkpoint may hold an `argparse.Namespace` beside its weights, and a hostile one runs
nothing: its function is a placeholder, too.
"""

import collections
import dataclasses
import os
import pickle
import pickletools
import reprlib
from collections.abc import Callable
from typing import IO, Any, cast

import ml_dtypes
import numpy as np

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
# Each unknown name costs a class. Real checkpoints have a dozen.
MOST_NAMES = 1000


@dataclasses.dataclass
class StorageRecord:
    """What a persistent id says: `count` elements of the type named, under `key`; not checked."""

    kind: Any
    key: Any
    count: Any


@dataclasses.dataclass
class TensorRecord:
    """What a rebuilding function was called with; nothing in it has been checked."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


class _Sealed(type):
    """The type of placeholders: a pickle can set attributes of what it builds, but none of these."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise ValueError("pickle changes a class: refused")


class Placeholder(dict, metaclass=_Sealed):
    """Stands for an object of an unknown class. It ignores arguments and state.

    It is a dict, and empty unless the pickle fills it: a state dict in a dict class of somebody's own is read as one.
    """

    __slots__ = ()
    asked = ""

    def __new__(cls, *_: Any, **__: Any) -> "Placeholder":
        return dict.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """Ignores an item, where the unknown class is a list."""

    def extend(self, _: Any) -> None:
        """Ignores items, where the unknown class is a list."""

    def add(self, _: Any) -> None:
        """Ignores an item, where the unknown class is a set."""

    # Objects may be keys, and one placeholder is no other. mypy minds that a dict, its base, has no hash.
    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__
    __ne__ = object.__ne__


class _Function:
    """A function that a pickle may call but, other than one of Python's, not set attributes of."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise ValueError("pickle changes a function: refused")


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRecord:
    return TensorRecord(storage, offset, size, stride)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _rebuild_from_type(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """A tensor that somebody set attributes of, which are dropped."""
    known = (FUNCTIONS["torch._utils._rebuild_tensor_v2"], FUNCTIONS["torch._utils._rebuild_parameter"])
    return function(*arguments) if function in known else Placeholder()


FUNCTIONS: dict[str, Any] = {
    "collections.OrderedDict": collections.OrderedDict,
    "torch._utils._rebuild_tensor": _Function(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": _Function(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Function(_rebuild_parameter),
    "torch._utils._rebuild_parameter_with_state": _Function(_rebuild_parameter),
    "torch._tensor._rebuild_from_type_v2": _Function(_rebuild_from_type),
}


class Unpickler(pickle.Unpickler):
    """Loads plain values, records of tensors and placeholders; `plain=True` refuses the last.

    Raises:
      ValueError: what is asked for cannot be had, or should not be.
    """

    def __init__(self, file: IO[bytes], *, plain: bool = False, encoding: str = "ASCII") -> None:
        super().__init__(file, encoding=encoding)
        self._file = file
        self._plain = plain
        self._placeholders: dict[str, type[Placeholder]] = {}
        # Bytes of an element in each storage met, of those whose type is known.
        self.itemsizes: dict[Any, int] = {}

    def load(self) -> Any:
        """The next value in the file."""
        start = self._file.tell()
        check_sizes(self._file)
        self._file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name in the pickle. Nothing is imported."""
        asked = f"{module}.{name}"
        if asked in FUNCTIONS:
            return FUNCTIONS[asked]
        if module == "torch" and name in DTYPES:
            return name
        if self._plain or len(self._placeholders) >= MOST_NAMES:
            raise ValueError(refusal(asked))
        if asked not in self._placeholders:
            body = {"__slots__": (), "asked": asked}
            self._placeholders[asked] = cast(type[Placeholder], _Sealed("Placeholder", (Placeholder,), body))
        return self._placeholders[asked]

    def persistent_load(self, pid: Any) -> StorageRecord:
        """The record of a storage."""
        # ("storage", type, key, device, count), in old files also a view: None in all that are met.
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or any(pid[5:]):
            raise ValueError(f"persistent id {reprlib.repr(pid)} names no tensor storage")
        if isinstance(pid[1], str) and pid[1] in DTYPES:
            self.itemsizes[pid[2]] = DTYPES[pid[1]].itemsize
        return StorageRecord(pid[1], pid[2], pid[4])


class _Clipped:
    """A file that makes no room for more than it has left."""

    def __init__(self, file: IO[bytes]) -> None:
        self.readline, self.tell = file.readline, file.tell
        start = file.tell()
        self._file, self._size = file, file.seek(0, os.SEEK_END)
        file.seek(start)

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._size - self._file.tell()))


def check_sizes(file: IO[bytes]) -> None:
    """Raises `ValueError` if a pickle claims more memory than it could fill.

    Python's unpickler makes room for what is claimed before it has seen it: for bytes, whose length `genops` checks,
    and for a table of what was built, up to the number that an opcode gives an entry. A pickler counts entries up, so
    no number is beyond its place in the file.

    Args:
      file: read to the end of the next pickle.
    """
    clipped = _Clipped(file)
    for opcode, argument, place in pickletools.genops(cast(IO[bytes], clipped)):
        is_entry = opcode.name in ("PUT", "BINPUT", "LONG_BINPUT")
        if is_entry and int(cast(int, argument)) > cast(int, place):
            raise ValueError(f"pickle claims a table of {argument} entries: refused")


def refusal(name: str) -> str:
    """Why a name in a pickle is not looked up."""
    return f"pickle asks for {name}; only tensors are read, nothing is run: refused"
