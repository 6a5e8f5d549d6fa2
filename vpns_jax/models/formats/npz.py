"""NumPy's `.npz`: a zip archive of `.npy` members, none of which may hold Python objects."""

import math
import zipfile
from pathlib import Path

import numpy as np

# How many times larger than the file its arrays may be. Compression by zlib reaches 1000, so that a few megabytes would
# fill a machine's memory. A network with one percent of its weights stays below 60.
MOST_TIMES = 100
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads an `.npz` file.

    Args:
      path: an existing file.

    Returns:
      Its arrays by name.

    Raises:
      ValueError: a member is no `.npy` file, comes twice, holds objects, or has not the length of its header; or the
        members are compressed in another way than NumPy does, or are together `MOST_TIMES` larger than the file.
    """
    tensors = {}
    with zipfile.ZipFile(path) as archive:
        _check_sizes(archive, path.stat().st_size)
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename or name in tensors:
                raise ValueError(f"member {info.filename!r} is no .npy file, or comes twice")
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                if version not in _HEADERS:
                    raise ValueError(f"array {name!r} has .npy version {version}; known: 1.0, 2.0")
                shape, fortran, dtype = _HEADERS[version](member)
                if dtype.hasobject:
                    raise ValueError(f"array {name!r} holds Python objects (a pickle), not numbers")
                # Checked before memory of that size is allocated.
                count, length = math.prod(shape), info.file_size - member.tell()
                if count * dtype.itemsize != length:
                    raise ValueError(f"array {name!r}: {length} bytes do not fit {dtype} of shape {shape}")
                flat = np.frombuffer(member.read(), dtype, count)
                tensors[name] = flat.reshape(shape, order="F" if fortran else "C")
    return tensors


def _check_sizes(archive: zipfile.ZipFile, size: int) -> None:
    """Refuses an archive that unpacks into much more than its size in bytes."""
    members = archive.infolist()
    # Python unpacks other kinds of compression in steps without a bound.
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise ValueError("members have a compression that NumPy does not write")
    unpacked = sum(member.file_size for member in members)
    if unpacked > MOST_TIMES * size:
        raise ValueError(
            f"holds {unpacked:,} bytes in {size:,}; more than {MOST_TIMES} times its size is not read: save it by "
            "np.savez, which does not compress"
        )
