"""What more than one key of a config allows, with the reasons, and what names and paths may look like."""

from pathlib import PurePosixPath

from vpns_jax import data, files
from vpns_jax.data import folder
from vpns_jax.errors import UserError, short
from vpns_jax.options import Range

BATCH_SIZE = Range(1, 2**20, "no training is known to have used larger ones")
SIDE = Range(1, 8192, "one image of that side takes 0.8 GB in float32")
# Of what only some prompts read: 0 where it is not read.
PROMPT_SIDE = Range(0, 8192, "one image of that side takes 0.8 GB in float32")
SEED = Range(0, 2**32 - 1, "a seed lies in [0, 2**32), for others would be taken modulo 2**32 and two seeds be one")
DEVICES = Range(-1, 2**20, "no cluster has that many devices")
# Of one batch on its canvas, in float32.
MOST_BATCH_BYTES = 2**40
# Of method x density x seed.
MOST_CELLS = 100_000


def run_name(value: str, path: str) -> None:
    """Raises `UserError` unless a run can be called so: its folder is runs/NAME, and not outside of it."""
    files.user_path(value, path)
    parts = value.split("/")
    if any(part in ("", ".", "..") or part.startswith("~") for part in parts) or not _encodes(value):
        raise UserError(f"{path} is {short(value)}; it must be the name of a folder within runs/")


def data_set(value: str, path: str) -> None:
    """Raises `UserError` unless there is a data set of that name, or a folder."""
    if value.startswith(folder.PREFIX) and value != folder.PREFIX:
        files.user_path(value.removeprefix(folder.PREFIX), path)
    elif len(value) > files.MOST_NAME:
        raise UserError(f"{path} is {short(value)}; no data set has so long a name")
    data.check(value)


def maybe_path(value: str, path: str) -> None:
    """Raises `UserError` for what can be neither "" nor a path."""
    if value:
        files.user_path(value, path)


def _encodes(value: str) -> bool:
    try:
        PurePosixPath(value).as_posix().encode()
    except UnicodeEncodeError:
        return False
    return True
