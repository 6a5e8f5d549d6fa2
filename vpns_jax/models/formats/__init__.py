"""Weight files to arrays: `read` for any format known, chosen by the file's suffix."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vpns_jax.errors import LONGEST, UserError, shorten
from vpns_jax.models.formats.contents import Contents
from vpns_jax.models.formats.npz import read_npz
from vpns_jax.models.formats.safetensors import read_safetensors, save_safetensors
from vpns_jax.models.formats.torch_pickle import read_torch

__all__ = ["Contents", "check_no_page", "read", "read_contents", "save_safetensors"]

# Each takes a path and returns tensors by name, possibly read-only views of the file; what is wrong with a
# file it says in an exception.
READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".safetensors": read_safetensors,
    ".npz": read_npz,
}
# What `torch.save` writes has many names; ".tar" is the end of ".pth.tar", and no tar archive.
TORCH = (".pth", ".pt", ".bin", ".ckpt", ".tar")
# What is served, or checked out, in a weight file's place: by how it begins.
IMPOSTORS = {
    b"<!doctype": "a web page (a login or an error?)",
    b"<html": "a web page (a login or an error?)",
    b"<?xml": "an XML page (an error?)",
    b"version https://git-lfs": "Git LFS's pointer to the weights",
}


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a weight file, by name, as they are stored; arguments and errors as of `read_contents`."""
    return read_contents(path).tensors


def read_contents(path: Path, weights_key: str = "") -> Contents:
    """What a weight file holds.

    No file, however made, makes this run code of its own or read more than the file holds. The arrays may be
    read-only views of it: copy what is to outlive the file.

    Args:
      path: the file; its suffix, in either case, says its format.
      weights_key: which entry of a checkpoint of PyTorch's to take; see `state_dict.find`.

    Returns:
      Its tensors, and what was chosen or passed over.

    Raises:
      UserError: if the file is missing, of an unknown format, or not what its format says it should be.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS and suffix not in TORCH:
        raise UserError(f"{path}: unknown weight format {suffix!r}; known: {', '.join((*READERS, *TORCH))}")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    check_no_page(path)
    try:
        if suffix in TORCH:
            return read_torch(path, weights_key)
        return Contents(READERS[suffix](path))
    except Exception as error:  # A hostile pickle or archive can make its parser raise anything.
        reason = shorten(str(error), max(100, LONGEST - len(str(path)) - 2)) or type(error).__name__
        raise UserError(f"{path}: {reason}") from error


def check_no_page(path: Path) -> None:
    """Raises `UserError` if a file is not weights but what is sometimes served in their place."""
    with path.open("rb") as file:
        begin = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, what in IMPOSTORS.items():
        if begin.startswith(mark):
            raise UserError(f"{path} is {what}, not weights: remove it and fetch the file itself")
