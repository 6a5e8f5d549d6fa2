"""Flips a bit in any file of a run: its next reader must report it, or get what was written."""

import functools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments import summaries
from tests.experiment import small
from tests.faults.tally import Case, Outcome
from vpns_jax import models
from vpns_jax.deploy import subnetworks

SEED = 3
CELL = "hydra-s50-seed7"
# Keys that a second run of the same cell measures again.
MEASURED = ("seconds", "compile_seconds", "latency")


def finished(number: int, scratch: Path) -> Iterator[Case]:
    """Flips a bit in every file of a finished run in turn. The tiny network must be registered, as in `small.world`."""
    data, whole = small.images(scratch / "images"), scratch / "whole"
    small.go(whole, data)
    return _cases(number, scratch, whole, functools.partial(_compare, data, _read(whole), _results(whole, data)))


def stopped(number: int, scratch: Path) -> Iterator[Case]:
    """Flips a bit in every file of a run that was killed in retraining, between a row and its checkpoint."""
    data, half = small.images(scratch / "images"), scratch / "half"
    with pytest.MonkeyPatch.context() as patch:
        small.stop_after(patch, "retrain", 2)
        with pytest.raises(small.Stop):
            small.go(half, data)
    return _cases(
        number, scratch, half, functools.partial(_compare, data, _read(half), _results(scratch / "whole", data))
    )


def _cases(number: int, scratch: Path, run: Path, compare: functools.partial[Outcome]) -> Iterator[Case]:
    draw = random.Random(SEED)
    files = sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file() and path.stat().st_size)
    draw.shuffle(files)
    for k in range(number):
        name, folder = files[k % len(files)], scratch / "damaged"
        shutil.copytree(run, folder)
        raw = bytearray((folder / name).read_bytes())
        place, bit = draw.randrange(len(raw)), draw.randrange(8)
        raw[place] ^= 1 << bit
        (folder / name).write_bytes(raw)
        yield Case(f"{name}, byte {place}, bit {bit}", functools.partial(compare, folder))
        shutil.rmtree(folder)


def _read(folder: Path) -> Any:
    """Reads what tables, figures and other runs read from a run."""
    summary = folder / "summary.json"
    source = models.load_pretrained("tiny", folder / "subnetworks" / "source.safetensors", num_classes=None)
    return summaries.read(summary) if summary.exists() else None, jax.device_get(source)


def _results(folder: Path, data: str) -> Any:
    """Runs the command again; returns its results and the arrays of its network."""
    cells = small.go(folder, data)["cells"]
    network = subnetworks.load(folder / "subnetworks" / f"{CELL}.safetensors", "tiny", image_size=8)
    results = [{key: value for key, value in cell.items() if key not in MEASURED} for cell in cells]
    return results, jax.device_get((network.weights, network.mask, network.batch_stats, network.prompt))


def _compare(data: str, read: Any, results: Any, folder: Path) -> Outcome:
    same = _equal(_read(folder), read) and _equal(_results(folder, data), results)
    return Outcome.RIGHT if same else Outcome.SILENT


def _equal(first: Any, second: Any) -> bool:
    same = jax.tree.structure(first) == jax.tree.structure(second)
    return same and all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second)))
