"""Checksums of a checkpoint: of its arrays, and of its files."""

from pathlib import Path
from typing import Any

from vpns_jax import files
from vpns_jax.parallel import sharding


def digest_of(arrays: dict[str, Any]) -> str:
    """The digest of arrays, however they are distributed; each is brought to the host as a whole, one after another."""
    return files.digest_arrays((name, sharding.to_host(arrays[name])) for name in sorted(arrays))


def hashes_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): files.sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def problem_of(folder: Path, expected: dict[str, str]) -> str:
    """Describes the first damaged file of a folder; "" if all are intact."""
    for name, wanted in expected.items():
        try:
            digest = files.sha256(folder / name)
        except OSError as error:
            return f"{folder.name}/{name}: {error.strerror}"
        if digest != wanted:
            return f"{folder.name}/{name} does not match its checksum"
    return ""
