"""The benchmark of accelerators keeps what was measured, whatever ends it. Tests do not check times."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.accelerator import parts, report, rows, running
from benchmarks.accelerator.parts import Part

ROOT = Path(__file__).parent.parent.parent
ROWS = [{"what": "first", "ms": 1.5}, {"what": "second", "ms": 2.5, "tiny": True}, "A remark."]
DRIVER = """
import sys
from pathlib import Path
from benchmarks.accelerator import running
from tests.benchmarks.test_accelerator import part
running.run([part("ends"), part("hangs")], Path(sys.argv[1]), minutes=2, tiny=True, head={})
"""


def part(last, seconds=60.0):
    return Part(last, f"A part that {last}", "tests.benchmarks.tiny_parts", seconds, {"last": last})


def states(directory):
    return {each["part"]: each for each in json.loads((directory / report.RESULTS).read_text())["parts"]}


def test_a_part_that_breaks_is_named_and_the_others_run(tmp_path):
    running.run([part("breaks"), part("ends")], tmp_path, minutes=2, tiny=True, head={"command": "a test"})
    told = states(tmp_path)
    assert [each["state"] for each in told.values()] == ["failed", "done"]
    assert told["breaks"]["reason"] == "exit code 1: breaks"
    assert "ValueError: this | part" in told["breaks"]["log"]
    for each in told.values():
        assert each["tables"] == {"Numbers": ROWS}
    page = (tmp_path / report.PAGE).read_text()
    assert "**failed**: exit code 1: breaks" in page
    assert page.count("| second | 2.50 | True |") == 2
    assert page.count("- A remark.") == 2


@pytest.mark.slow
def test_a_part_that_takes_too_long_is_cut_off_and_keeps_its_rows(tmp_path):
    running.run([part("hangs", seconds=3.0), part("ends")], tmp_path, minutes=2, tiny=False, head={})
    told = states(tmp_path)
    assert told["hangs"]["state"] == "cut off"
    assert told["hangs"]["reason"] == "it took more than 3 s"
    assert [row["what"] for row in told["hangs"]["tables"]["Numbers"][:2]] == ["first", "second"]
    assert told["ends"]["state"] == "done"


def test_without_time_a_part_is_not_started(tmp_path):
    running.run([part("ends")], tmp_path, minutes=0.01, tiny=True, head={})
    assert states(tmp_path)["ends"]["reason"] == "no time was left"


@pytest.mark.slow
def test_what_was_measured_stays_when_all_is_killed(tmp_path):
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], cwd=ROOT)
    until = time.monotonic() + 60
    while not _holds_rows(tmp_path, "hangs"):
        assert time.monotonic() < until
        time.sleep(0.1)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    told = states(tmp_path)
    assert told["ends"]["state"] == "done"
    assert told["hangs"]["tables"] == {"Numbers": ROWS}
    assert told["hangs"]["reason"] == "it had not ended when this page was written"
    assert "**begun**" in (tmp_path / report.PAGE).read_text()


def _holds_rows(directory, name):
    return (directory / report.RESULTS).exists() and len(states(directory)[name]["tables"].get("Numbers", ())) == 3


def test_every_part_has_a_module_and_a_name_of_its_own():
    for each in parts.PARTS:
        assert importlib.util.find_spec(each.module)
    assert len({each.name for each in parts.PARTS}) == len(parts.PARTS)


def test_a_row_that_cannot_be_measured_names_the_reason(capsys):
    def breaks():
        raise ValueError("one\n two | three")

    row = rows.tried("Table", {"what": "it"}, breaks)
    assert row == ("Table", {"what": "it", "not measured": "ValueError: one two / three"})
    assert "Traceback" in capsys.readouterr().err


def test_ratios_are_to_the_first_row_or_left_out():
    table = rows.Compared("dense")
    assert table.columns("prune", 3.0, lambda dense: {"as dense": 3.0 / dense}) == {}
    assert table.columns("dense", 2.0, lambda dense: {"as dense": 2.0 / dense}) == {"as dense": 1}
    assert table.columns("prune", 3.0, lambda dense: {"as dense": 3.0 / dense}) == {"as dense": 1.5}


@pytest.mark.slow
def test_a_rehearsal_of_a_real_part(tmp_path):
    running.run(
        [each for each in parts.PARTS if each.name == "machine"], tmp_path, minutes=2, tiny=True, head={"command": "it"}
    )
    told = states(tmp_path)["machine"]
    assert told["state"] == "done"
    facts = {row["fact"]: row["value"] for row in told["tables"]["Facts"]}
    assert facts["platform"] == "cpu"
    assert len(told["tables"]["Rates"]) == 3
