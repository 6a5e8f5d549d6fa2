"""Runs all families of bad input."""

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.experiment import small
from tests.faults import configs, flips, folders, weights
from tests.faults.tally import Tally, count


def tallies(scratch: Path, *, inputs: int, damages: int) -> Iterator[Tally]:
    """Tries `inputs` configs, folders and weight files, and `damages` flips, with files below `scratch`."""
    with _quiet(), pytest.MonkeyPatch.context() as patch, small.world(scratch, patch, figures=False):
        yield count("Configs", configs.cases(inputs))
        yield count("Folders of images", folders.cases(inputs, _new(scratch / "folders")))
        yield count("Weight files", weights.cases(inputs, _new(scratch / "weights")))
        yield count("Bits of a finished run", flips.finished(damages, _new(scratch / "finished")))
        yield count("Bits of a run that was stopped", flips.stopped(damages, _new(scratch / "stopped")))


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the notes and the progress of a thousand cases."""
    logger = logging.getLogger("vpns_jax")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
    finally:
        logger.setLevel(level)
