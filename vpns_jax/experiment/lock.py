"""The lock of a run's folder: one run at a time writes in it."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from vpns_jax.errors import UserError
from vpns_jax.parallel import processes
from vpns_jax.storage import storage_errors

LOCK = ".lock"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Locks the folder of a run until the block or the process ends, in whatever way.

    If there are several processes, the first one holds the lock for all.

    Args:
      path: the folder, which is made if it does not exist.

    Yields:
      Nothing.

    Raises:
      UserError: another process holds the lock, or the folder cannot be written.
    """
    if not processes.is_primary():
        yield
        return
    make_writable(path)
    with storage_errors(path), (path / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"--workdir {path} is in use by {file.read(100).strip() or 'another process'}; wait for it to end, "
                "or choose another --workdir"
            ) from error
        except OSError:
            pass  # Some network file systems have no locks; then the run goes on without one.
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        # The system releases the lock when the file is closed, also when the process is killed.
        yield


def make_writable(path: Path) -> None:
    """Makes a folder if it does not exist, and checks that files can be written in it.

    Args:
      path: the folder.

    Raises:
      UserError: it cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        # The permission bits would not show a read-only disk.
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"--workdir {path} cannot be written: {error.strerror}") from error
