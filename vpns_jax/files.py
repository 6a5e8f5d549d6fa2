"""Files: where they are kept between runs, and writing one whole or not at all."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any


def cache_directory() -> Path:
    """The folder of what is kept between runs: source networks trained here, folder indices, compiled programs.

    Returns:
      $VPNS_JAX_CACHE; without it `vpns_jax` in the user's cache folder, by the XDG convention.
    """
    chosen = os.environ.get("VPNS_JAX_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vpns_jax"


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


def escape_output() -> None:
    """Lets standard output escape what its encoding lacks, such as a class name's letters, where it would raise."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


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
