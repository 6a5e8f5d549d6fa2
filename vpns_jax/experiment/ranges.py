"""Allowed values that several keys share, with the reasons, and checks of names and paths."""

from pathlib import PurePosixPath

from vpns_jax import data, files
from vpns_jax.data import folder
from vpns_jax.errors import UserError, short
from vpns_jax.options import Range

BATCH_SIZE = Range(1, 2**20, "no training is known to have used larger ones")
SIDE = Range(1, 8192, "one image of that side takes 0.8 GB in float32")
# Sizes that only some kinds of prompt read; 0 if a size is not read.
PROMPT_SIDE = Range(0, 8192, "one image of that side takes 0.8 GB in float32")
SEED = Range(0, 2**32 - 1, "seeds are taken modulo 2**32, so a larger seed would be the same as a smaller one")
DEVICES = Range(-1, 2**20, "no cluster has that many devices")
# The most bytes of one batch on its canvas, in float32.
MOST_BATCH_BYTES = 2**40
# The most combinations of method, density and seed.
MOST_CELLS = 100_000


def run_name(value: str, path: str) -> None:
    """Checks that a run can have this name: its folder, runs/NAME, must lie within runs/.

    Args:
      value: the value of the key.
      path: the name of the key, such as "config.name".

    Raises:
      UserError: it cannot.
    """
    files.user_path(value, path)
    parts = value.split("/")
    if any(part in ("", ".", "..") or part.startswith("~") for part in parts) or not _encodes(value):
        raise UserError(f"{path} is {short(value)}; it must be the name of a folder within runs/")


def data_set(value: str, path: str) -> None:
    """Checks that the value names a data set, or a folder of images.

    Args:
      value: the value of the key.
      path: the name of the key, such as "config.name".

    Raises:
      UserError: it does not.
    """
    if value.startswith(folder.PREFIX) and value != folder.PREFIX:
        files.user_path(value.removeprefix(folder.PREFIX), path)
    elif len(value) > files.MOST_NAME:
        raise UserError(f"{path} is {short(value)}; no data set has so long a name")
    data.check(value)


def maybe_path(value: str, path: str) -> None:
    """Checks that the value is "" or can be a path.

    Args:
      value: the value of the key.
      path: the name of the key, such as "config.name".

    Raises:
      UserError: it is neither.
    """
    if value:
        files.user_path(value, path)


def _encodes(value: str) -> bool:
    try:
        PurePosixPath(value).as_posix().encode()
    except UnicodeEncodeError:
        return False
    return True
