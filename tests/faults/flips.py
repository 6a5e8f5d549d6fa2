"""A bit flipped in any file of a finished run: the next run and its network say so, or give equal results."""

import functools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from tests.experiment import small
from tests.faults.tally import Case, Outcome
from vpns_jax.deploy import subnetworks

SEED = 3
CELL = "hydra-s50-seed7"


def cases(number: int, scratch: Path) -> Iterator[Case]:
    """Every file in turn, in a world where the tiny network can be run."""
    draw, data = random.Random(SEED), small.images(scratch / "images")
    whole = scratch / "whole"
    expected = _results(whole, data)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file() and path.stat().st_size)
    draw.shuffle(files)
    for k in range(number):
        name, folder = files[k % len(files)], scratch / "damaged"
        shutil.copytree(whole, folder)
        raw = bytearray((folder / name).read_bytes())
        place, bit = draw.randrange(len(raw)), draw.randrange(8)
        raw[place] ^= 1 << bit
        (folder / name).write_bytes(raw)
        yield Case(f"{name}, byte {place}, bit {bit}", functools.partial(_compare, folder, data, expected))
        shutil.rmtree(folder)


def _results(folder: Path, data: str) -> tuple:
    """What a run says in the end, and the numbers of the network that it leaves."""
    summary = small.go(folder, data)
    network = subnetworks.load(folder / "subnetworks" / f"{CELL}.safetensors", "tiny", image_size=8)
    return summary["cells"], jax.device_get((network.weights, network.mask, network.batch_stats, network.prompt))


def _compare(folder: Path, data: str, expected: tuple) -> Outcome:
    actual = _results(folder, data)
    same = actual[0] == expected[0] and jax.tree.structure(actual[1]) == jax.tree.structure(expected[1])
    same = same and all(map(np.array_equal, jax.tree.leaves(actual[1]), jax.tree.leaves(expected[1])))
    return Outcome.RIGHT if same else Outcome.SILENT
