"""Reads weight files into arrays; the file's suffix decides the format."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vpns_jax.errors import LONGEST, UserError, shorten
from vpns_jax.models.formats.contents import Contents
from vpns_jax.models.formats.npz import read_npz
from vpns_jax.models.formats.safetensors import in_c_order, read_safetensors, save_safetensors
from vpns_jax.models.formats.torch_pickle import read_torch

__all__ = ["Contents", "check_no_page", "in_c_order", "read", "read_contents", "save_safetensors"]

# Each reader takes a path and returns tensors by name, possibly read-only views of the file. It raises an exception
# that says what is wrong with the file.
READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".safetensors": read_safetensors,
    ".npz": read_npz,
}
# Files of `torch.save` have many suffixes; ".tar" is the end of ".pth.tar", and no tar archive.
TORCH = (".pth", ".pt", ".bin", ".ckpt", ".tar")
# Files that servers and git sometimes deliver in place of weights, by their first bytes.
IMPOSTORS = {
    b"<!doctype": "a web page (a login or an error?)",
    b"<html": "a web page (a login or an error?)",
    b"<?xml": "an XML page (an error?)",
    b"version https://git-lfs": "Git LFS's pointer to the weights",
}


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a weight file, by name, as they are stored; see `read_contents`."""
    return read_contents(path).tensors


def read_contents(path: Path, weights_key: str = "") -> Contents:
    """Reads a weight file.

    No file, not even a hostile one, can make this run the file's code. Nor can it make this take more memory than the
    file's size; only an `.npz`, which may be compressed, may take `npz.MOST_TIMES` as much. The arrays may be read-only
    views of the file: copy what must outlive it.

    Args:
      path: the file; its suffix, in upper or lower case, decides the format.
      weights_key: which entry of a PyTorch checkpoint to take; see `state_dict.find`.

    Returns:
      Its tensors, and which of its entries were chosen or skipped.

    Raises:
      UserError: the file is missing, has an unknown format, or does not conform to its format.
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
    except Exception as error:  # A hostile pickle or archive can make its parser raise any exception.
        reason = shorten(str(error), max(100, LONGEST - len(str(path)) - 2)) or type(error).__name__
        raise UserError(f"{path}: {reason}") from error


def check_no_page(path: Path) -> None:
    """Checks that a file is not a web page or Git LFS pointer, which are sometimes delivered in place of weights.

    Args:
      path: an existing file.

    Raises:
      UserError: the file is one of these.
    """
    with path.open("rb") as file:
        begin = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, what in IMPOSTORS.items():
        if begin.startswith(mark):
            raise UserError(f"{path} is {what}, not weights: remove it and fetch the file itself")
