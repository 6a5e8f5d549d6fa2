"""The parts of a run's time."""

import time

import pytest

from benchmarks import spans, start
from benchmarks.spans import Span
from tests.experiment import small
from vpns_jax import data, deploy
from vpns_jax.experiment import pretraining, report, run
from vpns_jax.experiment.workdir import Workdir
from vpns_jax.training.checkpoints import Checkpoints


def test_what_lies_inside_is_taken_off_by_hand():
    seconds = spans.exclusive(
        [
            Span("compiling", 3, 6),
            Span("training", 0, 10),
            Span("tracing", 1, 3),
            Span("tracing", 1.5, 2),
            Span("figures", 7, 9),
            # Ends after the span around it.
            Span("writing", 8, 9.5),
            Span("imports", 10, 11),
        ]
    )
    assert seconds == {"training": 3, "tracing": 2, "compiling": 3, "figures": 1, "writing": 1.5, "imports": 1}


WRAPPED = (
    (run, "open_inputs"),
    (run, "run"),
    (data, "materialize"),
    (report, "draw_cell"),
    (report, "report"),
    (Checkpoints, "save"),
    (deploy, "save"),
    (pretraining, "save"),
    (Workdir, "write_cell"),
)


@pytest.mark.slow
def test_the_parts_of_a_real_run_add_up(tmp_path, monkeypatch):
    for owner, name in WRAPPED:
        # Puts back afterwards what is wrapped for as long as the process lives.
        monkeypatch.setattr(owner, name, getattr(owner, name))
    with small.world(tmp_path, monkeypatch):
        images = small.images(tmp_path / "images")
        began = time.time() - 1
        seconds = spans.recorded(began, lambda: small.go(tmp_path / "run", images, methods=("random",)))
    assert seconds["imports"] >= 1
    # Nothing is compiled if another test has run the same programs.
    assert all(seconds[part] > 0 for part in ("data", "training", "figures", "writing"))
    assert min(seconds[part] for part in spans.PARTS) >= 0
    assert sum(seconds[part] for part in spans.PARTS) == pytest.approx(seconds["all"])
    assert 1 < seconds["first row"] < seconds["all"]


@pytest.mark.slow
def test_a_start_that_fails_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="exit code 2"):
        start.start("configs/quickstart.py", ["--config.densities=(2.0,)"], tmp_path)


def test_the_figure_has_a_bar_for_each_start_and_a_line_at_its_first_row(tmp_path, drawn):
    rows = [
        {"start": name, **dict.fromkeys(spans.PARTS, seconds), "all": 8 * seconds, "first row": 3 * seconds}
        for name, seconds in (("first", 2.0), ("again", 1.0))
    ]
    start.figure(rows, tmp_path / "parts.png")
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "again"]
    assert [round(bar.get_x() + bar.get_width()) for bar in axes.patches[7::8]] == [16, 8]
    assert [line.get_xdata()[0] for line in axes.lines] == [6, 3]


def test_medians():
    assert start.medians([{"all": 3.0}, {"all": 1.0}, {"all": 2.0}]) == {"all": 2.0}
