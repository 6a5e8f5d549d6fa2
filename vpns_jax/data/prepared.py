"""Checksums of what describes a data set that TFDS prepared, so that damage is noticed before anything is read by it.

The records themselves carry checksums, which their reader looks at.
"""

import logging
from pathlib import Path

from vpns_jax import files
from vpns_jax.errors import UserError

_LOG = logging.getLogger(__name__)
_NAME = "vpns_jax.checksums.json"
_DESCRIBE = ("*.json", "*.txt")


def check(home: Path, name: str) -> None:
    """Raises `UserError` if a description is not as it was when the data set was first opened.

    Args:
      home: the data set's folder, with one for each configuration and version below it.
      name: of the data set.
    """
    for place in sorted(home.rglob(_NAME)):
        remedy = f"remove {place.parent} and prepare {name} anew"
        for file, expected in files.read_sealed(place, f"remove it, or {remedy} if in doubt").items():
            try:
                found = files.sha256(place.parent / file)
            except OSError as error:
                raise UserError(f"data set {name!r}: {place.parent / file}: {error.strerror}; {remedy}") from error
            if found != expected:
                raise UserError(f"data set {name!r}: {place.parent / file} does not match its checksum; {remedy}")


def remember(folder: Path) -> None:
    """Writes the checksums of a prepared data set that was opened well, unless that was done before.

    Args:
      folder: of one version of it.
    """
    place = folder / _NAME
    if place.exists():
        return
    found = sorted({path for pattern in _DESCRIBE for path in folder.glob(pattern)})
    try:
        files.write_sealed(place, {path.name: files.sha256(path) for path in found})
    except (OSError, UserError) as error:
        _LOG.info("cannot remember checksums in %s: %s", folder, error)
