"""Label mappings worked by hand."""

import jax
import numpy as np
import pytest

from vpns_jax.errors import UserError
from vpns_jax.prompting import label_mapping


def test_counts():
    logits = np.eye(3, dtype=np.float32)[[2, 2, 0, 1]]
    count = jax.jit(label_mapping.count_predictions, static_argnums=3)
    counts = count(logits, np.array([0, 1, 0, 1]), np.array([1, 1, 1, 0]), 2)
    assert counts.tolist() == [[1, 0], [0, 0], [1, 1]]


def test_frequency_is_greedy_and_one_to_one():
    # 9 is taken first and takes source 0 away from target 1, whose next best is 4 of source 2.
    assert label_mapping.frequency(np.array([[9, 8], [5, 0], [1, 4]])).tolist() == [0, 2]


def test_ties_go_to_the_lowest_source_then_the_lowest_target():
    assert label_mapping.frequency(np.full((3, 2), 7)).tolist() == [0, 1]


def test_absent_target_class_gets_a_free_source():
    assert label_mapping.frequency(np.array([[0, 5, 0], [0, 0, 0], [0, 0, 6], [0, 0, 0]])).tolist() == [1, 0, 2]


def test_counts_are_left_as_they_were():
    counts = np.array([[1, 2], [3, 4]])
    label_mapping.frequency(counts)
    assert counts.tolist() == [[1, 2], [3, 4]]


def test_random_is_distinct_and_depends_on_the_key():
    draws = [tuple(label_mapping.random(jax.random.key(seed), 40, 10).tolist()) for seed in range(5)]
    assert all(len(set(draw)) == 10 for draw in draws)
    assert len(set(draws)) == 5


def test_apply():
    assert jax.jit(label_mapping.apply)(np.array([[1.0, 2.0, 3.0]]), np.array([2, 0])).tolist() == [[3.0, 1.0]]


def test_more_target_than_source_classes():
    with pytest.raises(UserError, match="3 target classes, but the pretrained head has 2"):
        label_mapping.frequency(np.ones((2, 3)))
    with pytest.raises(UserError, match="mapping head fits"):
        label_mapping.random(jax.random.key(0), 2, 3)
