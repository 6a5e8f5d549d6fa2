"""Disks in trouble: full, read-only or damaged, and a folder that two runs use at once."""

import errno
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import summaries
from tests.experiment import small
from vpns_jax import models
from vpns_jax.deploy import subnetworks
from vpns_jax.errors import UserError
from vpns_jax.experiment import report
from vpns_jax.experiment.lock import locked
from vpns_jax.training.writers import MetricLog

pytestmark = pytest.mark.slow

CELL = "hydra-s50-seed7"


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch):
    with small.world(tmp_path, monkeypatch, figures=False):
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with "images" and two runs: a "whole" one, and one that is "half" done.

    The latter was killed in retraining, between a row and its checkpoint.
    """
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch, small.world(folder, patch, figures=False):
        data = small.images(folder / "images")
        small.go(folder / "whole", data)
        small.stop_after(patch, "retrain", 2)
        with pytest.raises(small.Stop):
            small.go(folder / "half", data)
    return folder


@pytest.fixture
def data(made):
    return f"folder:{made / 'images'}"


def one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text
    assert len(text) <= 400
    for word in words:
        assert word in text


def flipped(path, place, bit):
    raw = bytearray(path.read_bytes())
    raw[place] ^= bit
    path.write_bytes(raw)


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


KINDS = ("flip", "half", "removed")
# Files on which nothing depends: they are written again, or only looked at.
LOOKED_AT = ("figures", "tensorboard", "report.html", "summary.json", ".lock")
# Not read by the run, but by whoever uses the network later.
FOR_OTHERS = ("subnetworks",)


def test_any_byte_of_any_file_of_a_run_is_noticed_or_decides_nothing(tmp_path, made, data, capsys):
    """For a half and a whole run, a damaged, cut or missing file gives a line with its name, or equal results.

    Each file of a checkpoint's state is damaged in one way only: that each way is noticed in each of them is what
    tests/training/test_checkpoints.py shows.
    """
    expected = (made / "whole" / "subnetworks" / f"{CELL}.safetensors").read_bytes()
    draw, noticed, kinds = random.Random(0), 0, itertools.cycle(KINDS)
    for run in ("half", "whole"):
        names = [path.relative_to(made / run) for path in (made / run).rglob("*") if path.is_file()]
        names = [name for name in names if name.parts[0] not in LOOKED_AT + FOR_OTHERS]
        # The checkpoints of a finished cell are no longer read.
        names = [name for name in names if run == "half" or name.parts[0] != "checkpoints"]
        for name in names:
            for kind in [next(kinds)] if "state" in name.parts else KINDS:
                folder = tmp_path / "damaged"
                shutil.copytree(made / run, folder)
                path = folder / name
                if kind == "flip":
                    flipped(path, draw.randrange(path.stat().st_size), 1 << draw.randrange(8))
                elif kind == "half":
                    half(path)
                else:
                    path.unlink()
                try:
                    small.go(folder, data)
                except UserError as error:
                    noticed += 1
                    text = str(error)
                    assert "\n" not in text, text
                    assert len(text) <= 400, text
                    named = name.parts[0] in text or name.name in text or "holds a run of another config" in text
                    assert named or "neither empty nor a run's folder" in text, (name, kind, text)
                else:
                    network = (folder / "subnetworks" / f"{CELL}.safetensors").read_bytes()
                    assert network == expected, (name, kind)
                    # A cell without a result is evaluated again.
                    assert (name.parts[0], kind) == ("cells", "removed") or (
                        name.name == "metrics.jsonl" and "metrics.jsonl has lost rows of" in capsys.readouterr().out
                    ), (name, kind)
                shutil.rmtree(folder)
    assert noticed > 40


def test_a_stage_that_is_run_again_stands_before_the_one_that_followed_it(tmp_path, made, data):
    """An error about a damaged checkpoint of stage prune says to remove its folder, also after retraining has begun."""
    folder = tmp_path / "again"
    shutil.copytree(made / "whole", folder)
    result = folder / "cells" / f"{CELL}.json"
    before = json.loads(result.read_text())
    result.unlink()
    shutil.rmtree(folder / "checkpoints" / CELL / "prune")
    small.go(folder, data)
    after = json.loads(result.read_text())
    for key in ("val", "test", "optimizer_steps", "forward_passes"):
        assert after[key] == before[key]
    assert list(after["seconds"]) == list(before["seconds"]) == ["prune", "retrain"]


def test_no_byte_of_a_finished_network_can_be_another(tmp_path, made):
    shutil.copytree(made / "whole", tmp_path / "run")
    path = tmp_path / "run" / "subnetworks" / f"{CELL}.safetensors"
    draw = random.Random(0)
    for file in (path, path.with_suffix(".task.safetensors")):
        whole = file.read_bytes()
        for place in (*range(0, len(whole), 3), len(whole) - 1):
            file.write_bytes(whole)
            flipped(file, place, 1 << draw.randrange(8))
            with pytest.raises(UserError) as error:
                subnetworks.load(path, "tiny", image_size=8)
            one_line(error, file.name)
        file.write_bytes(whole)
    subnetworks.load(path, "tiny", image_size=8)


def test_a_changed_summary_and_source_network_are_noticed_by_who_reads_them(tmp_path, made, data):
    shutil.copytree(made / "whole", tmp_path / "run")
    summary, source = tmp_path / "run" / "summary.json", tmp_path / "run" / "subnetworks" / "source.safetensors"
    text = summary.read_text()
    assert '"seed": 7' in text
    summary.write_text(text.replace('"seed": 7', '"seed": 8', 1))
    with pytest.raises(UserError) as error:
        summaries.read(summary)
    one_line(error, str(summary), "does not match its checksum", "remove it")
    flipped(source, source.stat().st_size - 3, 1)
    with pytest.raises(UserError) as error:
        models.load_pretrained("tiny", source, num_classes=None)
    one_line(error, str(source), "does not match its checksum", "remove it")
    # The same command writes both files again.
    small.go(tmp_path / "run", data)
    assert summaries.read(summary)["cells"][0]["seed"] == 7
    models.load_pretrained("tiny", source, num_classes=None)


def test_a_cut_log_is_noticed_where_rows_are_needed(tmp_path, made, data):
    shutil.copytree(made / "half", tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in ([], lines[1:], lines[:1]):
        path.write_bytes(b"".join(kept))
        with pytest.raises(UserError) as error:
            small.go(tmp_path / "run", data)
        one_line(error, "metrics.jsonl has lost rows", CELL, f"remove checkpoints/{CELL}")
    # The advice in the error works.
    shutil.rmtree(tmp_path / "run" / "checkpoints" / CELL)
    small.go(tmp_path / "run", data)
    assert len(MetricLog(path).rows()) == 3


# In the order in which a run writes them first.
REFUSED = (
    *((name, errno.ENOSPC) for name in ("tensorboard", "metrics.jsonl", "figures", "subnetworks")),
    *(("cells", code) for code in (errno.ENOSPC, errno.EROFS, errno.ESTALE)),
    ("summary.json", errno.ENOSPC),
)


def test_a_disk_that_refuses_is_one_line_and_the_same_command_goes_on(tmp_path, data, monkeypatch):
    """Whichever file is written first: the same command, again and again, comes to the next file."""
    real = Path.open
    for where, code in REFUSED:

        def refuse(self, mode="r", *args, where=where, code=code, **kwargs):
            inside = (tmp_path / "run") in self.parents and where in str(self.relative_to(tmp_path / "run"))
            if inside and mode[0] in "wax":
                raise OSError(code, os.strerror(code), str(self))
            return real(self, mode, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", refuse)
            if where == "figures":
                # A library writes these files, and need not say which one it could not write.
                def fail(*_, code=code, **__):
                    raise OSError(code, os.strerror(code))

                patch.setattr(report, "draw_cell", fail)
            with pytest.raises(UserError) as error:
                small.go(tmp_path / "run", data)
        one_line(error, str(tmp_path / "run"), os.strerror(code), "run the same command again")
    assert len(small.go(tmp_path / "run", data)["cells"]) == 1


def test_a_second_run_in_the_same_folder_is_refused(tmp_path, data):
    with locked(tmp_path / "run"):
        with pytest.raises(UserError) as error:
            small.go(tmp_path / "run", data)
        one_line(error, str(tmp_path / "run"), f"in use by process {os.getpid()} on ", "choose another --workdir")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    small.go(tmp_path / "run", data)


HOLD = """
import sys, time
from pathlib import Path
from vpns_jax.experiment.lock import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_run_leaves_no_lock_behind(tmp_path):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, env=environment, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"in use by process {holder.pid}"), locked(tmp_path / "run"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with locked(tmp_path / "run"):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
