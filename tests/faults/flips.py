"""A bit flipped in any file of a run: the next run, or whoever reads the file, says so or gets what was written."""

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
# A cell that is run again measures them again.
MEASURED = ("seconds", "compile_seconds", "latency")


def finished(number: int, scratch: Path) -> Iterator[Case]:
    """Every file of a finished run in turn. The tiny network must be registered, as in `small.world`."""
    data, whole = small.images(scratch / "images"), scratch / "whole"
    small.go(whole, data)
    return _cases(number, scratch, whole, functools.partial(_compare, data, _read(whole), _results(whole, data)))


def stopped(number: int, scratch: Path) -> Iterator[Case]:
    """Every file of a run in turn that was killed in retraining, between a row and its checkpoint."""
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
    """What tables, figures and other runs read of a run, as it lies."""
    summary = folder / "summary.json"
    source = models.load_pretrained("tiny", folder / "subnetworks" / "source.safetensors", num_classes=None)
    return summaries.read(summary) if summary.exists() else None, jax.device_get(source)


def _results(folder: Path, data: str) -> Any:
    """What the command says in the end, and the numbers of the network that it leaves."""
    cells = small.go(folder, data)["cells"]
    network = subnetworks.load(folder / "subnetworks" / f"{CELL}.safetensors", "tiny", image_size=8)
    told = [{key: value for key, value in cell.items() if key not in MEASURED} for cell in cells]
    return told, jax.device_get((network.weights, network.mask, network.batch_stats, network.prompt))


def _compare(data: str, read: Any, results: Any, folder: Path) -> Outcome:
    same = _equal(_read(folder), read) and _equal(_results(folder, data), results)
    return Outcome.RIGHT if same else Outcome.SILENT


def _equal(one: Any, other: Any) -> bool:
    same = jax.tree.structure(one) == jax.tree.structure(other)
    return same and all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))
