"""Folders of images as people have them, of which it is known what should be read."""

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
    """Half of them with something that must be refused; each folder is gone before the next."""
    draw = random.Random(SEED)
    for k in range(number):
        where = scratch / str(k)
        folder = start(where / "images", draw)
        changes = draw.choices(HARMLESS, k=draw.randrange(5))
        fatal = draw.choice(FATAL) if k % 2 else None
        for change in (*changes, *([fatal] if fatal else [])):
            change(folder)
        name = (
            f"{k}: {[one.__name__ for one in changes]}, {fatal and fatal.__name__}, {os.fsencode(str(folder.splits))!r}"
        )
        yield Case(name, lambda folder=folder, fatal=fatal: _read(folder, fatal is not None), refusable=bool(fatal))
        shutil.rmtree(where)


def _read(folder: Folder, is_bad: bool) -> Outcome:
    found = data.open_sources(f"folder:{folder.root}", val_fraction=0.2)
    if is_bad or sorted(found.classes) != sorted(map(printable, folder.classes)):
        return Outcome.SILENT
    sources = (found.train, found.val, found.test)
    counts = np.array([np.bincount(one.labels, minlength=len(found.classes)) for one in sources])
    splits = len(folder.splits)
    for label, name in enumerate(found.classes):
        own = next(one for one in folder.classes if printable(one) == name)
        right = [folder.right[number, own] for number in range(splits)]
        if (counts[:, label].tolist() if splits == 3 else [counts[:, label].sum()]) != right:
            return Outcome.SILENT
    return Outcome.RIGHT if len(found.skipped) == folder.unreadable else Outcome.SILENT
