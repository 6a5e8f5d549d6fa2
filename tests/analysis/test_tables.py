"""Rows and tables of a small experiment, worked by hand."""

import pytest

from tests.analysis import samples
from vpns_jax.analysis.summary import collapse_lines, rows
from vpns_jax.analysis.tables import HEADINGS, markdown_table, percent, sparsity_name, table_cells, text_table


def test_rows_rise_in_sparsity_with_dense_first_and_methods_in_order_of_appearance():
    order = [(row.method, row.density, len(row.cells)) for row in rows(samples.summary())]
    assert order == [
        ("dense", 1.0, 1),
        ("vpns", 0.2, 1),
        ("hydra", 0.2, 1),
        ("vpns", 0.05, 2),
        ("hydra", 0.05, 1),
    ]


def test_seeds_are_gathered_to_mean_and_sample_deviation():
    row = rows(samples.summary())[3]
    # The sample deviation of two values is their distance divided by the square root of two.
    estimate = row.estimate("test", "best", "prompted")
    assert (estimate.count, estimate.mean) == (2, pytest.approx(0.75))
    assert estimate.std == pytest.approx(0.1 / 2**0.5)
    assert row.total("seconds").mean == pytest.approx(6.25)


def test_table_cells():
    assert table_cells(samples.summary())[1:4] == [
        ("vpns", "80%", "1", "95.0", "90.0", "—", "20.00", "10.00", "1,207", "2,500", "6.2"),
        ("hydra", "80%", "1", "—", "92.5", "—", "20.00", "10.00", "1,207", "2,500", "6.2"),
        ("vpns", "95%", "2", "75.0 ± 7.1", "55.0 ± 7.1", "—", "5.00", "2.50", "1,207 to 1,209", "2,500", "6.2"),
    ]


def test_a_cell_that_was_stopped_before_its_test_is_not_passed_over_in_silence():
    summary = samples.summary()
    for key in ("test", "optimizer_steps", "forward_passes", "seconds", "layers", "collapsed"):
        del summary["cells"][1][key]
    summary["cells"][3]["test"] = None
    cells = {(line[0], line[1]): line for line in table_cells(summary)}
    assert cells["vpns", "95%"][2:5] == ("2", "70.0 (of 1)", "50.0 (of 1)")
    assert cells["vpns", "80%"][2:5] == ("1", "—", "—")


def test_a_seed_that_diverged_shows_as_nan():
    summary = samples.summary()
    summary["cells"][0]["test"]["best"]["plain"] = float("nan")
    assert table_cells(summary)[3][3:5] == ("75.0 ± 7.1", "nan ± nan")


def test_no_cells_leave_only_the_headings():
    empty = {"cells": []}
    assert markdown_table(empty).count("\n") == 2
    assert text_table(empty).count("\n") == 3


def test_markdown_table():
    first, second, dense, *_ = markdown_table(samples.summary()).splitlines()
    assert first.startswith("| method | sparsity | seeds | test prompted % | test plain % | mean per class % |")
    assert second == "| :-- |" + " --: |" * (len(HEADINGS) - 1)
    assert dense == "| dense | 0% | 1 | — | 97.5 | — | 100.00 | 50.00 | 1,207 | 2,500 | 6.2 |"


def test_a_bar_in_a_name_does_not_split_a_markdown_cell():
    table = markdown_table({"cells": [samples.cell("a|b", 0.5, 7, 0.5, None)]})
    assert r"| a\|b | 50% |" in table


def test_text_table_lines_up():
    lines = text_table(samples.summary()).splitlines()
    rule = lines[2]
    ends = [i for i, (a, b) in enumerate(zip(rule, rule[1:] + " ", strict=True)) if a == "-" and b == " "]
    for line in lines[3:]:
        # All columns except the first are aligned to the right.
        assert all(line[end] != " " for end in ends[1:])
    assert lines[0].split()[:3] == ["method", "sparsity", "seeds"]
    assert lines[6].split()[:6] == ["vpns", "95%", "2", "75.0", "±", "7.1"]


@pytest.mark.parametrize(("density", "name"), [(1.0, "0%"), (0.2, "80%"), (0.05, "95%"), (0.00125, "99.875%")])
def test_sparsity_keeps_the_digits_asked_for(density, name):
    assert sparsity_name(density) == name


def test_percent():
    assert (percent(0.12345), percent(0.12345, 2), percent(None)) == ("12.3", "12.35", "—")


def test_collapse_is_said_plainly():
    summary = samples.summary()
    assert collapse_lines(summary) == []
    summary["cells"][0]["collapsed"] = ["conv/kernel", "unknown"]
    assert collapse_lines(summary) == [
        "vpns-s95-seed7: layer conv/kernel keeps none of its 3,000 weights",
        "vpns-s95-seed7: layer unknown keeps none of its weights",
    ]
