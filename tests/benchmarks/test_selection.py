"""The benchmark compares only functions with equal results. Tests do not check times."""

import json

import numpy as np
import pytest

from benchmarks import measure, selection


def test_thresholds_are_compared():
    scores = selection.draw([(3, 3, 8, 16)])
    with pytest.raises(AssertionError, match=r"wrong found 0\.0"):
        selection.check({"wrong": np.float32(0)}, scores)


def test_trees_have_the_sizes_they_are_called_by():
    for size in ("1.3M", "11.7M"):
        count = sum(np.prod(shape) for shape in selection.TREES[size][1]())
        assert f"{count / 1e6:.1f}M" == size


@pytest.mark.slow
def test_contenders_agree_and_are_written_down(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(selection.TREES, "1.3M", ("tiny", lambda: [(4, 5), (3,)]))
    selection.main(["--sizes", "1.3M", "--repeats", "1", "--json", str(tmp_path / "found.json")])
    assert "| scores | tree | kth_smallest, ms |" in " ".join(capsys.readouterr().out.split())
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["benchmark"] == "selection"
    assert written["versions"]["jax"]
    contenders = {"kth_smallest", "topk_mask", "numpy.partition", "jnp.sort", "lax.top_k"}
    assert {f"{name}, ms" for name in contenders} <= written["rows"][0].keys()


def test_least_of_the_rounds_counts(monkeypatch):
    """Functions run in turns, the first call does not count, and slow functions run once."""
    calls = []
    clock = iter([0.0, 6.0, 0.0, 4.0, 0.0, 3.0, 0.0, 2.0, 0.0, 2.5])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    functions = {"slow": lambda: calls.append("slow"), "quick": lambda: calls.append("quick")}
    assert measure.interleaved(functions, 3) == {"slow": 6.0, "quick": 2.0}
    assert calls == ["slow", "quick", "quick", "quick", "quick"]


def test_table_lines_up():
    assert measure.table([{"a": 1.5, "name": "x"}, {"a": 123.4, "name": None}]).splitlines() == [
        "| a    | name |",
        "| ---  | ---  |",
        "| 1.50 | x    |",
        "| 123  | -    |",
    ]
