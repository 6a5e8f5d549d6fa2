"""Files: where they are kept between runs, and writing one whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from vpns_jax.errors import UserError, one_line, short

# Of one name, in bytes, on every file system in use; and of a path, with room for what is written below it.
MOST_NAME, MOST_PATH = 255, 3500


def cache_directory() -> Path:
    """The folder of what is kept between runs: source networks trained here, folder indices, compiled programs.

    Returns:
      $VPNS_JAX_CACHE; without it `vpns_jax` in the user's cache folder, by the XDG convention.

    Raises:
      UserError: $VPNS_JAX_CACHE is no path.
    """
    chosen = os.environ.get("VPNS_JAX_CACHE")
    if chosen:
        return user_path(chosen, "$VPNS_JAX_CACHE")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vpns_jax"


def user_path(text: str, what: str) -> Path:
    """A path that a user has written, `~` filled in, once nothing about its letters can go wrong later.

    Args:
      text: the path.
      what: what to call it in an error, such as "--workdir".

    Returns:
      The path, whether or not there is anything.

    Raises:
      UserError: it is empty, has control characters, names a user that there is not, or is too long.
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


def read_json(path: str | Path) -> Any:
    """What a JSON file holds.

    Args:
      path: a file, which anyone may have written.

    Raises:
      UserError: it cannot be read, is no JSON, or is nested too deep; says what to do.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} cannot be read: there is no such file") from error
    except RecursionError as error:
        raise UserError(f"{path} cannot be read: it is nested too deep; mend or remove it") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}; mend or remove it") from error


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Writes a file so that a reader sees the old content or the new one, never a part.

    Args:
      path: the file; its folder exists.
      content: text, written as UTF-8, or bytes.
    """
    path = Path(path)
    # A name of its own for each process: two that write the same file must not share the unfinished one.
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        fresh.write_bytes(content.encode() if isinstance(content, str) else content)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all; see `write_whole` and `plain`."""
    write_whole(path, json.dumps(value, indent=2, default=plain) + "\n")


def plain(value: Any) -> Any:
    """What `json.dumps` asks for values it does not know: numpy and jax numbers, arrays as lists, paths as strings.

    Raises:
      TypeError: the value is none of these.
    """
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON: {value!r}")
