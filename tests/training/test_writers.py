"""Logs survive a kill, and TensorBoard itself can read the events."""

import importlib.util
import json
import os
import sys
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vpns_jax import files
from vpns_jax.errors import UserError
from vpns_jax.files import unfinished, write_json
from vpns_jax.storage import storage_errors
from vpns_jax.training.writers import MetricLog, TensorBoard

ROWS = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]


@pytest.fixture
def log(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl")
    for row in ROWS:
        log.append(row)
    return log


def test_rows_come_back_as_written(log):
    assert log.rows() == ROWS
    # For other programs each line is the row, with its checksum at the end.
    read = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [list(row.items())[:-1] for row in read] == [list(row.items()) for row in ROWS]
    content = b'{"epoch": 1, "loss": 0.5}'
    assert read[0]["crc32"] == f"{zlib.crc32(content):08x}"


def test_a_log_without_a_file_has_no_rows_and_makes_none(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl")
    assert log.rows() == []
    log.truncate(lambda row: True)
    assert not log.path.exists()


# Killed within a key, within a two-byte character, and just before the newline.
@pytest.mark.parametrize("torn", [b'{"ep', '{"cell": "é'.encode()[:-1], b'{"epoch": 3, "loss": 0.1}'])
def test_a_torn_last_line_is_not_read_and_not_built_upon(log, torn):
    with log.path.open("ab") as file:
        file.write(torn)
    assert log.rows() == ROWS
    log.append({"epoch": 3})
    assert log.rows() == [*ROWS, {"epoch": 3}]


def test_a_first_line_that_is_torn(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl")
    log.path.write_bytes(b'{"ep')
    assert log.rows() == []
    log.append({"epoch": 1})
    assert log.rows() == [{"epoch": 1}]


@pytest.mark.parametrize("damaged", ["", "{", "3", '{"epoch": 2}', "[" * 100_000])
def test_a_damaged_line_in_the_middle_is_named(log, damaged):
    first, second = log.path.read_text().splitlines()
    log.path.write_text(f"{first}\n{damaged}\n{second}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 is damaged or was edited") as error:
        log.rows()
    assert len(str(error.value).splitlines()) == 1


def test_no_byte_of_a_row_can_be_another(log):
    whole = log.path.read_bytes()
    for place, byte in enumerate(whole[:-1]):
        for bit in (1, 16, 64):
            log.path.write_bytes(whole[:place] + bytes([byte ^ bit]) + whole[place + 1 :])
            with pytest.raises(UserError, match=r"line [12] is damaged"):
                log.rows()


def test_truncate_keeps_what_it_is_told_and_cuts_the_torn_line(log):
    with log.path.open("ab") as file:
        file.write(b'{"ep')
    first = log.path.read_text().splitlines()[0]
    log.truncate(lambda row: row["epoch"] < 2)
    assert log.path.read_text() == f"{first}\n"
    assert list(log.path.parent.iterdir()) == [log.path]


def test_a_kill_within_truncate_leaves_the_log_whole(log, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        log.truncate(lambda row: False)
    assert log.rows() == ROWS


def test_scalars_of_numpy_and_jax_are_numbers(log):
    log.append({"a": np.float32(0.5), "b": jnp.int32(3), "c": None})
    assert log.rows()[-1] == {"a": 0.5, "b": 3, "c": None}


def test_a_number_that_is_not_finite_is_null(log, tmp_path):
    """Other JSON readers than Python's refuse NaN and Infinity."""
    values = {"a": float("nan"), "b": [np.float32("inf"), 1.0], "c": {"d": jnp.asarray([-jnp.inf, 2.0])}}
    nulls = {"a": None, "b": [None, 1.0], "c": {"d": [None, 2.0]}}

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    log.append(values)
    write_json(tmp_path / "summary.json", values)
    assert log.rows()[-1] == nulls
    for text in (log.path.read_text().splitlines()[-1], (tmp_path / "summary.json").read_text()):
        read = json.loads(text, parse_constant=refuse)
        assert {key: read[key] for key in nulls} == nulls


def test_write_json_replaces_the_file_whole(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": np.arange(2), "where": tmp_path})
    assert json.loads(path.read_text()) == {"a": [0, 1], "where": str(tmp_path)}
    assert list(tmp_path.iterdir()) == [path]


def test_write_json_refuses_what_is_not_json_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError, match="set is not JSON"):
        write_json(path, {"a": {1}})
    assert json.loads(path.read_text()) == {"a": 1}


def events(directory):
    return EventAccumulator(str(directory), size_guidance={"scalars": 0, "images": 0}).Reload()


def test_tensorboard_reads_scalars_back(tmp_path):
    with TensorBoard(tmp_path) as board:
        board.scalars(10, {"loss": 0.5, "accuracy": jnp.float32(0.25), "prompted": None})
        board.scalars(20, {"loss": 0.125})
    read = events(tmp_path)
    assert sorted(read.Tags()["scalars"]) == ["accuracy", "loss"]
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(10, 0.5), (20, 0.125)]
    assert "tensorflow" not in sys.modules


def test_events_are_on_disk_before_the_file_is_closed(tmp_path):
    with TensorBoard(tmp_path) as board:
        board.scalars(1, {"loss": 0.5})
        assert len(events(tmp_path).Scalars("loss")) == 1


@pytest.mark.parametrize("torn", [0, 7])
def test_a_resumed_run_replaces_what_came_after_its_checkpoint(tmp_path, caplog, torn):
    """TensorBoard reports when it has to purge events; here it reports nothing."""
    with TensorBoard(tmp_path) as board:
        for step in (1, 2, 3):
            board.scalars(step, {"loss": step / 2})
    (first,) = tmp_path.iterdir()
    # Also a kill in the middle of a write.
    first.write_bytes(first.read_bytes()[: -torn or None])
    seen = events(tmp_path)
    for resume_step in (3, 2):
        with TensorBoard(tmp_path, resume_step=resume_step) as board:
            board.scalars(resume_step, {"loss": 10.0 * resume_step})
            board.scalars(4, {"loss": 11.0})
    with caplog.at_level("DEBUG"):
        read = events(tmp_path)
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(1, 0.5), (2, 20.0), (4, 11.0)]
    assert not [record for record in caplog.records if "out of order" in record.message]
    # A TensorBoard that was already running sees the same.
    assert [event.step for event in seen.Reload().Scalars("loss")] == [1, 2, 4]


def test_a_damaged_event_file_stops_no_run(tmp_path):
    with TensorBoard(tmp_path) as board:
        board.scalars(1, {"loss": 0.5})
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 128]) + whole[place + 1 :])
        with TensorBoard(tmp_path, resume_step=2) as board:
            board.scalars(2, {"loss": 0.25})
        for other in set(tmp_path.iterdir()) - {path}:
            other.unlink()


def test_unfinished_files_of_two_containers_differ_though_their_process_numbers_do_not(tmp_path):
    spec = importlib.util.spec_from_file_location("files_of_another_process", files.__file__)
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    assert other.unfinished(tmp_path / "a.json") != unfinished(tmp_path / "a.json")


def test_a_disk_that_refuses_is_one_line(tmp_path):
    """Every write to /dev/full fails with "No space left on device"."""
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    unfinished(path).symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"summary\.json cannot be written: No space left on device, .* MiB free there"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, os.strerror(28), "/a/run/cells/x.json"), "^/a/run/cells/x.json cannot be written: No space left"),
        # An error about another file, such as one of a plotting library, also means a full disk.
        (OSError(28, os.strerror(28)), "^/a/run cannot be written: No space left"),
        (OSError(122, os.strerror(122)), "^/a/run cannot be written: Disk quota exceeded"),
        (FileNotFoundError(2, os.strerror(2), "/a/run/cells"), "^/a/run/cells cannot be written or read: No such file"),
        # Some libraries raise their own errors.
        (ValueError("Error writing: No space left on device [os_error_code='28']"), "^/a/run cannot be written: No sp"),
        (RuntimeError('Error: I/O error: "Read-only file system (os error 30)"'), "^/a/run cannot .*: Read-only"),
    ],
)
def test_what_a_disk_refuses_anywhere_in_a_run_is_one_line(error, message):
    with pytest.raises(UserError, match=message), storage_errors("/a/run"):
        raise error


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, os.strerror(2), "/elsewhere"), ValueError("of ours"), UserError("a")]
)
def test_what_has_nothing_to_do_with_the_disk_stays_what_it_is(error):
    with pytest.raises(type(error)) as raised, storage_errors("/a/run"):
        raise error
    assert raised.value is error
