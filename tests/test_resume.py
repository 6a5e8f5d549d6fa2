"""A run that is killed at any moment and resumed ends bit for bit like an uninterrupted one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
CELL = "vpns-s70-seed7"
# main.py with a ResNet-18 of two blocks, because half of the time of a start is tracing and compiling.
SHALLOW = """
import dataclasses, sys
from vpns_jax.models import registry
import main

entry = registry.ENTRIES["resnet18"]
registry.ENTRIES["resnet18"] = dataclasses.replace(entry, architecture=entry.architecture | {"depths": (1, 1)})
sys.exit(main.main(["main.py", *sys.argv[1:]]))
"""
COMMAND = [
    sys.executable,
    "-c",
    SHALLOW,
    "--config=configs/quickstart.py",
    "--config.methods=('vpns',)",
    "--config.densities=(0.3,)",
    "--config.model.options.width=0.03125",
    "--config.pretrain.data=digits",
    "--config.pretrain.epochs=1",
    "--config.data.name=digits",
    "--config.data.image_size=16",
    "--config.prompt.canvas_size=16",
    "--config.prompt.pad_size=2",
    # Random numbers of every epoch and every batch must repeat, too.
    "--config.mapping.kind=iterative",
    "--config.prune.epochs=3",
    "--config.retrain.epochs=3",
    "--config.checkpoint_every_epochs=2",
]


def start(cache, workdir):
    # One compilation cache, so that later starts are quick and run the same programs.
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu"}
    with (workdir.parent / f"{workdir.name}.log").open("a") as log:
        return subprocess.Popen(
            [*COMMAND, f"--workdir={workdir}"], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )


def finish(cache, workdir):
    code = start(cache, workdir).wait(timeout=240)
    assert code == 0, (workdir.parent / f"{workdir.name}.log").read_text()[-2000:]


def rows(workdir, cell=CELL):
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [row for row in map(json.loads, lines) if row["cell"] == cell]


def kill_after(cache, workdir, cell, count):
    """Kills the run as soon as it has logged `count` epochs of a cell: before, during or after writing a checkpoint."""
    process = start(cache, workdir)
    deadline = time.monotonic() + 240
    path = workdir / "metrics.jsonl"
    while path.read_text().count(f'"{cell}"') < count if path.exists() else True:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
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
