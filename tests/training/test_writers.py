"""Logs that survive a kill, and events that TensorBoard itself reads back."""

import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from vpns_jax.errors import UserError
from vpns_jax.files import write_json
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
    assert log.path.read_text() == '{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "loss": 0.25}\n'


def test_a_log_without_a_file_has_no_rows_and_makes_none(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl")
    assert log.rows() == []
    log.truncate(lambda row: True)
    assert not log.path.exists()


# Killed within a key, within a character of two bytes, and one byte short of the newline.
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


@pytest.mark.parametrize("damaged", ["", "{", "3"])
def test_a_damaged_line_in_the_middle_is_named(log, damaged):
    first, second = log.path.read_text().splitlines()
    log.path.write_text(f"{first}\n{damaged}\n{second}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 is not a JSON object"):
        log.rows()


def test_truncate_keeps_what_it_is_told_and_cuts_the_torn_line(log):
    with log.path.open("ab") as file:
        file.write(b'{"ep')
    log.truncate(lambda row: row["epoch"] < 2)
    assert log.path.read_text() == '{"epoch": 1, "loss": 0.5}\n'
    assert list(log.path.parent.iterdir()) == [log.path]


def test_a_kill_within_truncate_leaves_the_log_whole(log, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        log.truncate(lambda row: False)
    assert log.rows() == ROWS


def test_scalars_of_numpy_and_jax_are_numbers(log):
    log.append({"a": np.float32(0.5), "b": jnp.int32(3), "c": None, "d": float("inf")})
    assert log.rows()[-1] == {"a": 0.5, "b": 3, "c": None, "d": float("inf")}


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


def test_tensorboard_reads_images_back(tmp_path):
    picture = np.zeros((2, 3, 3), np.float32)
    picture[0, 0] = [1.0, 0.5, -1.0]
    with TensorBoard(tmp_path / "new") as board:
        board.images(7, {"prompt": picture, "bytes": np.full((1, 1, 3), 9, np.uint8)})
    (event,) = events(tmp_path / "new").Images("prompt")
    assert (event.step, event.height, event.width) == (7, 2, 3)
    (tmp_path / "p.png").write_bytes(event.encoded_image_string)
    with Image.open(tmp_path / "p.png") as image:
        assert np.asarray(image)[0, 0].tolist() == [255, 128, 0]


def test_events_are_on_disk_before_the_file_is_closed(tmp_path):
    with TensorBoard(tmp_path) as board:
        board.scalars(1, {"loss": 0.5})
        assert len(events(tmp_path).Scalars("loss")) == 1


def test_a_resumed_run_replaces_what_came_after_its_checkpoint(tmp_path, monkeypatch):
    # Files of one second are read in the order of this counter's digits: 10 would come before 9.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    for purge_step, steps in ((None, (1, 2, 3)), (2, (2, 4))):
        with TensorBoard(tmp_path, purge_step=purge_step) as board:
            for step in steps:
                board.scalars(step, {"loss": step / 2})
    assert [event.step for event in events(tmp_path).Scalars("loss")] == [1, 2, 4]


def test_an_image_that_is_not_rgb_is_refused(tmp_path):
    with (
        TensorBoard(tmp_path) as board,
        pytest.raises(ValueError, match=r"must be \[h, w, 3\], got \(2, 2, 1\)"),
    ):
        board.images(0, {"grey": np.zeros((2, 2, 1))})
