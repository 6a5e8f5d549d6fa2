"""Folders of images as people have them, with the expected content."""

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.faults.making import FATAL, HARMLESS, Folder, start
from tests.faults.tally import Case, Outcome
from vpns_jax import data
from vpns_jax.data.text import printable

SEED = 1


def cases(number: int, scratch: Path) -> Iterator[Case]:
    """Makes folders, half of which must be refused; each folder is removed before the next is made."""
    draw = random.Random(SEED)
    for k in range(number):
        where = scratch / str(k)
        folder = start(where / "images", draw)
        changes = draw.choices(HARMLESS, k=draw.randrange(5))
        fatal = draw.choice(FATAL) if k % 2 else None
        for change in (*changes, *([fatal] if fatal else [])):
            change(folder)
        applied, splits = [change.__name__ for change in changes], os.fsencode(str(folder.splits))
        name = f"{k}: {applied}, {fatal and fatal.__name__}, {splits!r}"
        yield Case(name, lambda folder=folder, fatal=fatal: _read(folder, fatal is not None), refusable=bool(fatal))
        shutil.rmtree(where)


def _read(folder: Folder, is_bad: bool) -> Outcome:
    sources = data.open_sources(f"folder:{folder.root}", val_fraction=0.2)
    if is_bad or sorted(sources.classes) != sorted(map(printable, folder.classes)):
        return Outcome.SILENT
    splits = (sources.train, sources.val, sources.test)
    counts = np.array([np.bincount(split.labels, minlength=len(sources.classes)) for split in splits])
    for label, name in enumerate(sources.classes):
        own = next(folder_name for folder_name in folder.classes if printable(folder_name) == name)
        right = [folder.right[number, own] for number in range(len(folder.splits))]
        if (counts[:, label].tolist() if len(folder.splits) == 3 else [counts[:, label].sum()]) != right:
            return Outcome.SILENT
    return Outcome.RIGHT if len(sources.skipped) == folder.unreadable else Outcome.SILENT
