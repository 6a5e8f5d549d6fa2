"""Files: where they are kept between runs, how they are written whole or not at all, and how damage is noticed."""

import contextlib
import hashlib
import io
import json
import math
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from vpns_jax.errors import UserError, first_line, short
from vpns_jax.storage import refused

# The key under which a sealed JSON file keeps the checksum of everything else in it.
SEAL = "sha256"
# The most bytes of a name on common file systems, and of a path, with room for the files that are written below it.
MOST_NAME, MOST_PATH = 255, 3500
# Tells this process from one of another machine or container, which may have the same number.
_PROCESS = secrets.token_hex(4)


def cache_directory() -> Path:
    """The folder for data that is kept between runs: pretrained source networks, folder indices, compiled programs.

    Returns:
      $VPNS_JAX_CACHE; if it is not set, `vpns_jax` in the user's cache folder, by the XDG convention.

    Raises:
      UserError: $VPNS_JAX_CACHE is no valid path.
    """
    chosen = os.environ.get("VPNS_JAX_CACHE")
    if chosen:
        return user_path(chosen, "$VPNS_JAX_CACHE")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vpns_jax"


def user_path(text: str, what: str) -> Path:
    """Checks a path that a user has written, and replaces `~`.

    Args:
      text: the path.
      what: the path's name in errors, such as "--workdir".

    Returns:
      The path; the file need not exist.

    Raises:
      UserError: the path is empty, has control characters, names an unknown user, or is too long.
    """
    if not text:
        raise UserError(f"{what} is empty; name a path, or leave it out")
    if any(ord(letter) < 32 or letter == "\x7f" for letter in text):
        raise UserError(f"{what} is {short(text)}; a path has no control characters such as a line's end")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{what} is {short(text)}: there is no such user; for a folder of that name write ./{text[:40]}"
        ) from error
    try:
        lengths = [len(os.fsencode(part)) for part in path.parts]
    except UnicodeEncodeError as error:
        raise UserError(f"{what} is {short(text)}, which this system has no letters for") from error
    if max(lengths, default=0) > MOST_NAME:
        raise UserError(f"{what} is {short(text)}; a name in a path has at most {MOST_NAME} bytes")
    if sum(lengths) + len(lengths) > MOST_PATH:
        raise UserError(f"{what} is {short(text)}; a path has at most {MOST_PATH} bytes here")
    return path


def check_free(*paths: Path) -> None:
    """Checks that something new can be written to paths.

    Args:
      *paths: the paths.

    Raises:
      UserError: there is something already, there is no folder to write it to, or the folder may not be entered.
    """
    for path in paths:
        try:
            taken, has_folder = path.exists() or path.is_symlink(), path.parent.is_dir()
        except OSError as error:
            raise refused(path, error) from error
        if taken:
            raise UserError(f"{path} exists already, and nothing is overwritten; name another, or remove it")
        if not has_folder:
            raise UserError(f"{path} cannot be written: there is no folder {path.parent}; make it first")


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[IO[bytes]]:
    """Opens a file that replaces `path` at the end of the block, unless the block raises an error.

    So a reader sees the old content or the new one, never a part.

    Args:
      path: the file; its folder exists.

    Yields:
      A file to write bytes into.

    Raises:
      UserError: the disk refuses; the old file is unchanged.
    """
    path = Path(path)
    fresh = unfinished(path)
    try:
        with fresh.open("wb") as file:
            yield file
        fresh.replace(path)
    except OSError as error:
        raise refused(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def unfinished(path: Path) -> Path:
    """The file into which `whole` writes. Each process has its own, so that two processes can write the same file."""
    return path.with_name(f"{path.name}.{os.getpid()}-{_PROCESS}.tmp")


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Writes a file whole or not at all; see `whole`.

    Args:
      path: the file; its folder exists.
      content: text, written as UTF-8, or bytes.

    Raises:
      UserError: the disk refuses; the old file is unchanged.
    """
    with whole(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: str | Path, value: Any) -> None:
    """Writes a value as indented JSON, whole or not at all; see `write_whole` and `plain`.

    Args:
      path: the file; its folder exists.
      value: a value that `plain` can convert.

    Raises:
      UserError: the disk refuses; the old file is unchanged.
    """
    write_whole(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def write_sealed(path: str | Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object with a checksum of its contents, for `read_sealed`; see `write_json`.

    Args:
      path: the file; its folder exists.
      value: an object that `plain` can convert, without a key "sha256".

    Raises:
      UserError: the disk refuses; the old file is unchanged.
    """
    content = plain(value)
    write_json(path, {**content, SEAL: digest_json(content)})


def read_sealed(path: str | Path, remedy: str) -> dict[str, Any]:
    """Reads what `write_sealed` wrote, without the checksum.

    Args:
      path: the file.
      remedy: what to do if it is damaged, such as "remove it to ...".

    Raises:
      UserError: it cannot be read, or is not what was written.
    """
    # A program wrote this file, so the error says what to do, unlike for a missing file of the user's.
    return _unsealed(_read_json(path, remedy, missing=f"; {remedy}"), path, remedy)


def read_perhaps_sealed(path: str | Path, remedy: str) -> Any:
    """Reads JSON that a user may have written: a checksum must match if there is one.

    Args:
      path: the file.
      remedy: what to do if it is damaged, such as "remove it to ...".

    Returns:
      The value, without the checksum.

    Raises:
      UserError: it cannot be read, or is not what was written.
    """
    value = _read_json(path, remedy)
    return _unsealed(value, path, remedy) if isinstance(value, dict) and SEAL in value else value


def _unsealed(value: Any, path: str | Path, remedy: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.pop(SEAL, None) != digest_json(value):
        raise UserError(f"{path} is damaged or was edited: it does not match its checksum; {remedy}")
    return value


def _read_json(path: str | Path, remedy: str, *, missing: str = "") -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path} cannot be read: there is no such file{missing}") from error
    except RecursionError as error:
        raise UserError(f"{path} cannot be read: it is nested too deep; {remedy}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {_brief(error)}; {remedy}") from error


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; raises `OSError` if the file cannot be read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_arrays(arrays: Iterable[tuple[str, Any]]) -> str:
    """The SHA-256 of arrays: of their names, dtypes, shapes and bytes, in the given order.

    Args:
      arrays: names and arrays, of NumPy or of JAX on this host. They are read one by one, so a generator can make them.

    Returns:
      The digest in hexadecimal.
    """
    total = hashlib.sha256()
    for name, array in arrays:
        value = np.asarray(array)
        total.update(f"{name} {value.dtype} {value.shape}\n".encode())
        total.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def digest_json(value: Any) -> str:
    """The SHA-256 of a JSON value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def escape_output() -> None:
    """Makes standard output escape characters that its encoding lacks, instead of raising an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def plain(value: Any) -> Any:
    """Converts a value to JSON's types: arrays become lists, paths strings, and numbers that are not finite None.

    Args:
      value: made of dicts, lists, tuples, strings, paths, and numbers and arrays of Python, NumPy or JAX.

    Returns:
      The converted value.

    Raises:
      TypeError: the value holds something else.
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, float):
        # JSON has no NaN; readers other than Python's refuse the word.
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON: {value!r}")


def _brief(error: BaseException) -> str:
    """An error's first line, shortened."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)
