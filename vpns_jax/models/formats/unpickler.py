"""An unpickler that builds plain values and records of tensors, and runs no code of the pickle.

A pickle names the functions and classes to call. The few functions of torch that rebuild tensors make inert records
here. Every other name becomes a placeholder: a class defined here that ignores its arguments; nothing is imported. So a
checkpoint may hold an `argparse.Namespace` beside its weights, and a hostile pickle runs nothing, because its function
is a placeholder, too.
"""

import collections
import dataclasses
import functools
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
LONGEST_NAME = 200
# As Python 3 and protocol 2 call it.
GETATTR = ("builtins.getattr", "__builtin__.getattr")


@dataclasses.dataclass
class StorageRecord:
    """The contents of a persistent id: `count` elements of the type `kind`, stored under `key`; not checked."""

    kind: Any
    key: Any
    count: Any


@dataclasses.dataclass
class TensorRecord:
    """The arguments of a function that rebuilds a tensor; nothing in it has been checked."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


class _Sealed(type):
    """The type of placeholder classes. A pickle can set attributes of the objects it builds, but not of these."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise ValueError("pickle changes a class: refused")


class Placeholder(dict, metaclass=_Sealed):
    """Stands for an object of an unknown class. It ignores arguments and state.

    It is a dict, which stays empty unless the pickle fills it. So a state dict of a custom dict class can be read.
    """

    __slots__ = ()
    asked = ""

    def __new__(cls, *_: Any, **__: Any) -> "Placeholder":
        """Makes an empty dict, and ignores all arguments."""
        return dict.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        """Ignores the object's state."""

    def append(self, _: Any) -> None:
        """Ignores an item; called if the unknown class is a list."""

    def extend(self, _: Any) -> None:
        """Ignores items; called if the unknown class is a list."""

    def add(self, _: Any) -> None:
        """Ignores an item; called if the unknown class is a set."""

    # Placeholders may be keys, so they compare and hash by identity. mypy complains that dict, the base, has no hash.
    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__
    __ne__ = object.__ne__


class _Function:
    """A function that a pickle may call. Unlike a Python function, its attributes cannot be set."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function."""
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise ValueError("pickle changes a function: refused")


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRecord:
    return TensorRecord(storage, offset, size, stride)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _rebuild_from_type(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """A tensor with additional attributes, which are dropped."""
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
    """Loads plain values, records of tensors and placeholders; `plain=True` refuses placeholders."""

    def __init__(self, file: IO[bytes], *, plain: bool = False, encoding: str = "ASCII") -> None:
        super().__init__(file, encoding=encoding)
        self._file = file
        self._plain = plain
        self._placeholders: dict[str, type[Placeholder]] = {}
        # The size in bytes of an element, for each storage of a known type that the pickle names.
        self.itemsizes: dict[Any, int] = {}

    def load(self) -> Any:
        """Loads the next value in the file.

        Returns:
          The value.

        Raises:
          ValueError: the pickle claims too much memory, or names something that is refused.
        """
        start = self._file.tell()
        check_sizes(self._file)
        self._file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        """The object that stands for a name in the pickle. Nothing is imported.

        Args:
          module: the name's module.
          name: the name.

        Returns:
          A function that makes records, the name of a storage type, or a placeholder class.

        Raises:
          ValueError: the name is unknown, and only plain values are allowed or there are too many such names.
        """
        asked = f"{module}.{name}"
        if asked in FUNCTIONS:
            return FUNCTIONS[asked]
        if asked in GETATTR and not self._plain:
            return _Function(functools.partial(self._attribute, asked))
        if module == "torch" and name in DTYPES:
            return name
        if self._plain:
            raise ValueError(refusal(asked))
        return self._placeholder(asked)

    def _attribute(self, asked: str, of: Any = None, name: Any = "", *_: Any) -> Any:
        """Stands for an attribute of an unknown class: what protocol 2 writes for a class inside of a class."""
        known = isinstance(of, type) and issubclass(of, Placeholder) and isinstance(name, str)
        # The pickle holds a long name once, and may ask for it often.
        return self._placeholder(f"{of.asked}.{name}"[:LONGEST_NAME]) if known else self._placeholder(asked)()

    def _placeholder(self, asked: str) -> type[Placeholder]:
        """The class that stands for an unknown name."""
        if asked not in self._placeholders:
            if len(self._placeholders) >= MOST_NAMES:
                raise ValueError(refusal(asked))
            body = {"__slots__": (), "asked": asked}
            self._placeholders[asked] = cast(type[Placeholder], _Sealed("Placeholder", (Placeholder,), body))
        return self._placeholders[asked]

    def persistent_load(self, pid: Any) -> StorageRecord:
        """The record of a storage.

        Args:
          pid: ("storage", type, key, device, count), in old files also a view, which is None in all known files.

        Returns:
          The record.

        Raises:
          ValueError: the id is something else.
        """
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or any(pid[5:]):
            raise ValueError(f"persistent id {reprlib.repr(pid)} names no tensor storage")
        if isinstance(pid[1], str) and pid[1] in DTYPES:
            self.itemsizes[pid[2]] = DTYPES[pid[1]].itemsize
        return StorageRecord(pid[1], pid[2], pid[4])


class _Clipped:
    """A file that never allocates memory for more bytes than it has left."""

    def __init__(self, file: IO[bytes]) -> None:
        self.readline, self.tell = file.readline, file.tell
        start = file.tell()
        self._file, self._size = file, file.seek(0, os.SEEK_END)
        file.seek(start)

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._size - self._file.tell()))


def check_sizes(file: IO[bytes]) -> None:
    """Checks that a pickle does not claim more memory than it can fill.

    Python's unpickler allocates memory as claimed, before it has read the contents: for bytes, whose length `genops`
    checks; and for its memo table, up to the index that an opcode gives to an entry. A pickler numbers entries one by
    one, so in a valid pickle no index is larger than the opcode's position in the file.

    Args:
      file: the file, which is read to the end of the next pickle.

    Raises:
      ValueError: the pickle claims too much memory.
    """
    clipped = _Clipped(file)
    for opcode, argument, place in pickletools.genops(cast(IO[bytes], clipped)):
        is_entry = opcode.name in ("PUT", "BINPUT", "LONG_BINPUT")
        if is_entry and int(cast(int, argument)) > cast(int, place):
            raise ValueError(f"pickle claims a table of {argument} entries: refused")


def refusal(name: str) -> str:
    """The error text for a name in a pickle that is refused."""
    return f"pickle asks for {name}; only tensors are read, nothing is run: refused"
