"""Checksums of the descriptions of data sets that TFDS prepared, so that damage is noticed before data are read.

The records have their own checksums, which their reader checks.
"""

import logging
from pathlib import Path

from vpns_jax import files
from vpns_jax.errors import UserError

_LOG = logging.getLogger(__name__)
_NAME = "vpns_jax.checksums.json"
_DESCRIBE = ("*.json", "*.txt")


def check(home: Path, name: str) -> None:
    """Checks that the descriptions of a data set have not changed since it was first opened.

    Args:
      home: the data set's folder, which has a sub-folder for each configuration and version.
      name: the data set's name.

    Raises:
      UserError: a description is damaged or missing.
    """
    for place in sorted(home.rglob(_NAME)):
        remedy = f"remove {place.parent} and prepare {name} again"
        for file, expected in files.read_sealed(place, f"remove it, or {remedy} if in doubt").items():
            try:
                checksum = files.sha256(place.parent / file)
            except OSError as error:
                raise UserError(f"data set {name!r}: {place.parent / file}: {error.strerror}; {remedy}") from error
            if checksum != expected:
                raise UserError(f"data set {name!r}: {place.parent / file} does not match its checksum; {remedy}")


def remember(folder: Path) -> None:
    """Writes the checksums of a prepared data set that was opened without errors, unless they exist already.

    Args:
      folder: the folder of one version of the data set.
    """
    place = folder / _NAME
    if place.exists():
        return
    described = sorted({path for pattern in _DESCRIBE for path in folder.glob(pattern)})
    try:
        files.write_sealed(place, {path.name: files.sha256(path) for path in described})
    except (OSError, UserError) as error:
        _LOG.info("cannot remember checksums in %s: %s", folder, error)
