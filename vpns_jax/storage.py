"""Errors of disks, in one line: the disk is full, read-only, over its quota, or gone."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from vpns_jax.errors import UserError

# The system's error codes for a disk that is full, read-only, over its quota, broken, or gone.
_STORAGE = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ENODEV,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


@contextlib.contextmanager
def storage_errors(folder: str | Path) -> Iterator[None]:
    """Turns a disk's error in the block into a `UserError`.

    Args:
      folder: the folder that the block works on. Any system error about a file in it is turned; an error about another
        file only if a disk must be the cause.

    Yields:
      Nothing.

    Raises:
      UserError: names the file, what happened and, on a full disk, the free space.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        system = error if isinstance(error, OSError) else _quoted(error)
        if system is None:
            raise
        place = Path(os.fsdecode(system.filename)) if isinstance(system.filename, str | bytes) else Path(folder)
        if system.errno not in _STORAGE and not place.absolute().is_relative_to(Path(folder).absolute()):
            raise
        raise refused(place, system) from error


def _quoted(error: Exception) -> OSError | None:
    """The system's error, if a library (Orbax's storage, safetensors) quotes it in the text of its own error."""
    code = re.search(r"os[ _]error(?:_code=')? ?(\d+)", str(error))
    return OSError(int(code[1]), os.strerror(int(code[1]))) if code and int(code[1]) in _STORAGE else None


def refused(path: Path, error: OSError) -> UserError:
    """The `UserError` for a file that the disk refused to write or read.

    Args:
      path: the file.
      error: the system's error.

    Returns:
      The error, to be raised.
    """
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = free_bytes(path)
        reason += "" if free is None else f", {free / 2**20:.1f} MiB free there"
        return UserError(f"{path} cannot be written: {reason}; make room and run the same command again")
    return UserError(f"{path} cannot be written or read: {reason}; mend that and run the same command again")


def free_bytes(path: Path) -> int | None:
    """The free bytes on a file's disk; None if that is unknown."""
    for folder in (path.absolute(), *path.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return None
