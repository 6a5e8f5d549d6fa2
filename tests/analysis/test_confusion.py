"""Accuracy by class: counts that can be checked in the head."""

import numpy as np
import pytest

from vpns_jax.analysis.confusion import Confusion

# Six of class 0 (four right), two of class 1 (one right), none of class 2.
PAIRS = [(0, 0)] * 4 + [(0, 1)] * 2 + [(1, 1), (1, 2)]


def test_what_the_counts_say():
    confusion = Confusion.of(PAIRS, 3)
    assert confusion.counts.tolist() == [[4, 2, 0], [0, 1, 1], [0, 0, 0]]
    assert confusion.images.tolist() == [6, 2, 0]
    assert confusion.accuracy == 5 / 8
    assert confusion.recall == [4 / 6, 1 / 2, None]
    assert confusion.mean_class_accuracy == pytest.approx((4 / 6 + 1 / 2) / 2)
    assert confusion.majority == 6 / 8
    assert confusion.most_frequent == 0
    assert confusion.worst(5) == [1, 0]
    assert confusion.worst(1) == [1]
    assert confusion.mistakes(5) == [(0, 1, 2), (1, 2, 1)]
    assert confusion.mistakes(1) == [(0, 1, 2)]


def test_pairs_that_never_come_are_not_written():
    confusion = Confusion.of(PAIRS, 3)
    written = confusion.to_json()
    assert written == ["0:4 1:2", "1:1 2:1", ""]
    assert np.array_equal(Confusion.from_json(written).counts, confusion.counts)


def test_a_rare_class_counts_as_much_as_a_frequent_one():
    """Of four classes of very different sizes the largest is all that is ever answered."""
    confusion = Confusion(np.array([[1508, 0, 0, 0], [715, 0, 0, 0], [295, 0, 0, 0], [106, 0, 0, 0]]))
    assert round(confusion.majority, 3) == 0.575
    assert confusion.accuracy == confusion.majority == 1508 / 2624
    assert confusion.mean_class_accuracy == 0.25
    assert confusion.most_frequent == 0
    assert confusion.mistakes(2) == [(1, 0, 715), (2, 0, 295)]


def test_without_images_there_is_nothing_to_say():
    nothing = Confusion.of([], 2)
    assert (nothing.accuracy, nothing.mean_class_accuracy, nothing.majority) == (None, None, None)
    assert nothing.recall == [None, None]
    assert nothing.most_frequent is None
    assert nothing.worst(3) == []
    assert nothing.mistakes(3) == []
