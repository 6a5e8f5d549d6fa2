"""A run that is killed at any moment and resumed ends bit for bit like an uninterrupted one."""

import json
import shutil
import time

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import main
from tests import forks, sorting
from tests.experiment import small
from tests.pruners import cells
from tests.training import tiny
from vpns_jax.models import layouts, registry

pytestmark = pytest.mark.slow

CELL = "vpns-s70-seed7"
# Seconds: only a process that hangs takes as long, on however busy a machine.
PATIENCE = 1800
# What is drawn anew in every epoch and every batch must come again too.
CONFIG = cells.tree(
    densities=(0.3,),
    pretrain__data="digits",
    pretrain__epochs=1,
    data__name="digits",
    data__batch_size=64,
    mapping__kind="iterative",
    prune__epochs=3,
    retrain__epochs=3,
    checkpoint_every_epochs=2,
)


def program(config, workdir):
    """Runs main.py, which knows the tiny network here: tracing is most of what a start takes."""
    registry.ENTRIES["tiny"] = cells.ENTRY
    layouts.LAYOUTS[tiny.Tiny] = (layouts.resnet_torchvision,)
    sorting.replace_searches(pytest.MonkeyPatch())
    FigureCanvasAgg.print_png = small.save_blank
    return main.main(["main.py", f"--config={config}", f"--workdir={workdir}"])


def start(cache, workdir):
    config = workdir.parent / "config.py"
    config.write_text(
        f"from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({CONFIG})\n"
    )
    # One compilation cache, so that later starts are quick and run the same programs.
    environment = {"XDG_CACHE_HOME": str(cache)}
    return forks.start(program, config, workdir, log=workdir.parent / f"{workdir.name}.log", environment=environment)


def finish(cache, workdir):
    process = start(cache, workdir)
    process.join(PATIENCE)
    assert process.exitcode == 0, (workdir.parent / f"{workdir.name}.log").read_text()[-2000:]


def rows(workdir, cell=CELL):
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [row for row in map(json.loads, lines) if row["cell"] == cell]


def kill_after(cache, workdir, cell, count):
    """Kills the run as soon as it has logged `count` epochs of a cell: before, during or after writing a checkpoint."""
    process = start(cache, workdir)
    deadline = time.monotonic() + PATIENCE
    path = workdir / "metrics.jsonl"
    while path.read_text().count(f'"{cell}"') < count if path.exists() else True:
        assert process.is_alive(), "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.join()
    assert not (workdir / "cells" / f"{CELL}.json").exists()


def without_times(value):
    if isinstance(value, dict):
        times = {"seconds", "compile_seconds", "latency", "command", "crc32", "sha256"}
        return {key: without_times(item) for key, item in value.items() if key not in times}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def outcome(workdir, cell=CELL):
    """Reads results and log without times, digests of the newest and best checkpoints, and the networks."""
    digests = {
        str(path.relative_to(workdir)): json.loads(path.read_text())["digest"]
        for path in sorted((workdir / "checkpoints" / cell).rglob("meta.json"))
    }
    networks = {path.name: path.read_bytes() for path in sorted((workdir / "subnetworks").iterdir())}
    assert set(networks) == {"source.safetensors", f"{cell}.safetensors", f"{cell}.task.safetensors"}
    return (
        without_times(json.loads((workdir / "summary.json").read_text())),
        without_times(rows(workdir, cell)),
        digests,
        networks,
    )


def test_killed_again_and_again(tmp_path):
    """The run is killed while the source network is trained, in stage prune, and in stage retrain."""
    finish(tmp_path / "cache", tmp_path / "unbroken")
    expected = outcome(tmp_path / "unbroken")
    fresh = tmp_path / "fresh"
    shutil.copytree(tmp_path / "cache" / "vpns_jax" / "compiled", fresh / "vpns_jax" / "compiled")
    for cell, count in (("source", 1), (CELL, 2), (CELL, 5)):
        kill_after(fresh, tmp_path / "run", cell, count)
    finish(fresh, tmp_path / "run")
    resumed = outcome(tmp_path / "run")
    for part, wanted in zip(resumed, expected, strict=True):
        assert part == wanted
    # The newest and the best checkpoints of two stages; both may be the same.
    assert len(resumed[2]) >= 2
