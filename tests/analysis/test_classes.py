"""Accuracy by class in a report, worked by hand: of few classes all, of many the worst."""

import numpy as np
import pytest

from tests.analysis import samples
from tests.analysis.test_report import read
from vpns_jax.analysis import classes, figures
from vpns_jax.analysis.confusion import Confusion
from vpns_jax.analysis.report import write_report
from vpns_jax.analysis.tables import table_cells

NAMES = ("ok", "crack", "dent", "stain")
# Of these four classes of 1508, 715, 295 and 106 images the network knows the first best.
COUNTS = np.array([[1400, 108, 0, 0], [403, 312, 0, 0], [200, 36, 59, 0], [106, 0, 0, 0]])


def counted(summary, counts=COUNTS, names=NAMES):
    """Adds counts to the first cell, as an experiment does."""
    confusion = Confusion(counts)
    summary["classes"] = list(names)
    summary["cells"][0] |= {
        "confusion": {"plain": [""] * len(counts), "prompted": confusion.to_json()},
        "mean_class_accuracy": {"plain": 0.25, "prompted": confusion.mean_class_accuracy},
        "majority_class": confusion.majority,
    }
    return summary


def many(count):
    """Each class has ten images; class i of the first fifteen is taken for the next one in 9, 8, ..., 0 cases."""
    counts = np.diag(np.full(count, 10))
    for i in range(9):
        counts[i, i], counts[i, i + 1] = i + 1, 9 - i
    return counts, [f"class number {i}" for i in range(count)]


def test_the_report_tells_what_the_accuracy_does_not(tmp_path):
    """68% are right, which is little: always saying "ok" gives 57.5%, and one class is never recognized."""
    summary = counted(samples.summary())
    assert Confusion(COUNTS).accuracy == pytest.approx(0.675, abs=5e-4)
    line = "Always answering ok, the most frequent class of the test images, is right for 57.5% of them."
    assert classes.baseline(summary) == line
    _, page = read(write_report(summary, [], tmp_path / "report.html"))
    text = "|".join(page.text)
    assert line in text
    assert "ok|1,508|1,400|92.8|crack|715|312|43.6|dent|295|59|20.0|stain|106|0|0.0" in text
    assert "crack|ok|403|dent|ok|200|ok|crack|108|stain|ok|106|dent|crack|36" in text
    # 92.8%, 43.6%, 20% and 0%.
    assert "test, best: mean per class|39.1|25.0|test: always the most frequent class|57.5|57.5" in text


def test_the_mean_over_classes_stands_in_the_table():
    summary = counted(samples.summary())
    lines = {line[:2]: line for line in table_cells(summary)}
    assert lines["vpns", "95%"][5] == "39.1 (of 1)"
    assert lines["hydra", "95%"][5] == "—"
    # Without a prompt it is the plain one.
    summary["cells"][2]["mean_class_accuracy"] = {"plain": 0.5, "prompted": None}
    assert {line[:2]: line for line in table_cells(summary)}["hydra", "95%"][5] == "50.0"


def test_of_a_thousand_classes_the_worst_are_listed(tmp_path):
    counts, names = many(1000)
    summary = counted(samples.summary(), counts, names)
    _, page = read(write_report(summary, [], tmp_path / "report.html"))
    text = "|".join(page.text)
    assert "the worst 10 of 1000 classes" in text
    assert "class number 0|10|1|10.0|class number 1|10|2|20.0" in text
    assert "class number 0|class number 1|9|class number 1|class number 2|8" in text
    assert "class number 100" not in text


def test_cells_of_an_older_version_did_not_count(tmp_path):
    summary = samples.summary()
    assert classes.baseline(summary) == ""
    _, page = read(write_report(summary, [], tmp_path / "report.html"))
    assert "test, best: mean per class|—|—" in "|".join(page.text)
    assert classes.CLASS_HEADINGS[2] not in page.text


def test_classes_without_names_are_numbered():
    summary = counted(samples.summary())
    summary["classes"] = ["only one"]
    assert classes.baseline(summary).startswith("Always answering 0, the most")


def test_the_matrix_of_few_classes(tmp_path, drawn):
    figures.confusion_figure(Confusion(COUNTS), ("ok", "costs $5 to $7", "犬", "n" * 80), tmp_path / "m.png")
    axes = drawn[0].axes[0]
    np.testing.assert_allclose(axes.images[0].get_array()[1], [403 / 715, 312 / 715, 0, 0])
    written = {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
    # Columns are predictions, rows labels; pairs that never come stay empty.
    assert written == {(j, i): f"{COUNTS[i, j]:,}" for i in range(4) for j in range(4) if COUNTS[i, j]}
    for axis in (axes.get_xticklabels(), axes.get_yticklabels()):
        first, second, _, last = (label.get_text() for label in axis)
        assert (first, second) == ("ok", "costs $5 to $7")
        assert last == "n" * 21 + "…"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("taken for", "label")


def test_classes_without_images_leave_their_row_empty(tmp_path, drawn):
    figures.confusion_figure(Confusion(np.array([[0, 0], [1, 3]])), ("a", "b"), tmp_path / "m.png")
    np.testing.assert_allclose(drawn[0].axes[0].images[0].get_array(), [[0, 0], [0.25, 0.75]])


@pytest.mark.slow
@pytest.mark.parametrize("count", [21, 1000])
def test_the_picture_of_many_classes_shows_the_worst(tmp_path, drawn, count):
    counts, names = many(count)
    figures.confusion_figure(Confusion(counts), names, tmp_path / "m.png")
    recall, mistakes = drawn[0].axes
    assert [bar.get_width() for bar in recall.patches] == pytest.approx([10, 20, 30, 40, 50, 60, 70, 80, 90, 100])
    assert recall.get_yticklabels()[0].get_text() == "class number 0 (10)"
    assert recall.get_title() == f"The worst 10 of {count} classes (images)"
    # 45 of all images are wrong, and each class has ten.
    assert recall.lines[0].get_xdata()[0] == pytest.approx(100 - 450 / count)
    assert [bar.get_width() for bar in mistakes.patches] == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert mistakes.get_yticklabels()[0].get_text() == "class number 0 → class number 1"
    # The worst stand on top.
    assert recall.yaxis_inverted()
    assert mistakes.yaxis_inverted()


def test_many_classes_without_a_mistake(tmp_path, drawn):
    figures.confusion_figure(Confusion(np.diag([1] * 30)), [str(i) for i in range(30)], tmp_path / "m.png")
    assert len(drawn[0].axes[1].patches) == 0
