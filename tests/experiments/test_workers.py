"""Jobs in processes: each outcome is reported, whatever happens to the other jobs."""

import os
import time
from multiprocessing import util
from pathlib import Path

import pytest

from experiments import workers


def work(job):
    """Is called by the workers; quick to import."""
    folder, what = job
    if what == "raise":
        raise ValueError("first line\nthe last line")
    if what == "die":
        os._exit(7)
    if what == "slow":
        time.sleep(0.3)
    if what == "tidy":
        util.Finalize(None, Path(folder, "tidied").touch, exitpriority=1)
        return
    if what == "cores":
        Path(folder, "cores").write_text(str(len(os.sched_getaffinity(0))))
        return
    Path(folder, f"{what}-{os.getpid()}-{time.monotonic_ns()}").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))


def outcomes(jobs, **options):
    return {
        outcome.name: outcome.error
        for outcome in workers.run_all(jobs, work, **{"workers": 2, "devices": [], **options})
    }


def test_one_that_fails_stops_no_other(tmp_path):
    whats = ["fine", "raise", "die", "fine", "die", "fine"]
    errors = outcomes({f"{number}": (str(tmp_path), what) for number, what in enumerate(whats)})
    assert set(errors) == {"0", "1", "2", "3", "4", "5"}
    assert errors["1"][0] == "the last line"
    assert "ValueError: first line" in errors["1"][1]
    assert errors["2"][0] == errors["4"][0] == "the process died (exit code 7)"
    assert [errors[name] for name in "035"] == [None, None, None]
    assert len(list(tmp_path.iterdir())) == 3


def test_processes_are_used_again_and_see_their_own_device(tmp_path):
    errors = outcomes({f"{number}": (str(tmp_path), "slow") for number in range(4)}, devices=["3", "5"])
    assert list(errors.values()) == [None] * 4
    files = list(tmp_path.iterdir())
    assert len({path.name.split("-")[1] for path in files}) == 2
    assert {path.read_text() for path in files} == {"3", "5"}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processes cannot choose their cores here")
def test_one_job_has_all_cores_however_many_workers_are_allowed(tmp_path):
    assert outcomes({"0": (str(tmp_path), "cores")}) == {"0": None}
    assert int((tmp_path / "cores").read_text()) == len(os.sched_getaffinity(0))


def test_a_process_without_a_job_gives_back_what_it_holds(tmp_path):
    """A killed one leaves semaphores behind, of which Python warns when the program ends."""
    assert outcomes({"0": (str(tmp_path), "tidy")}) == {"0": None}
    assert (tmp_path / "tidied").exists()


def test_no_jobs():
    assert outcomes({}) == {}
