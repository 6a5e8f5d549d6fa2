"""Weight files to arrays: `read` for any format known, chosen by the file's suffix."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vpns_jax.errors import UserError
from vpns_jax.models.formats.npz import read_npz
from vpns_jax.models.formats.safetensors import read_safetensors, save_safetensors
from vpns_jax.models.formats.torch_pickle import read_torch

__all__ = ["READERS", "read", "save_safetensors"]

# Each takes a path and returns tensors by name, possibly read-only views of the file; what is wrong with a
# file it says in a `ValueError`.
READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".safetensors": read_safetensors,
    ".pth": read_torch,
    ".pt": read_torch,
    ".bin": read_torch,
    ".npz": read_npz,
}


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a weight file, by name, as they are stored.

    No file, however made, makes this run code of its own or read more than the file holds. The arrays may be
    read-only views of it: copy what is to outlive the file.

    Raises:
      UserError: if the file is missing, of an unknown format, or not what its format says it should be.
    """
    if path.suffix not in READERS:
        raise UserError(f"{path}: unknown weight format {path.suffix!r}; known: {', '.join(READERS)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return READERS[path.suffix](path)
    except Exception as error:  # A hostile pickle or archive can make its parser raise anything.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: {reason}") from error
