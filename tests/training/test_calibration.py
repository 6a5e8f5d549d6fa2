"""The calibration error, worked by hand with fifteen bins, each 1/15 = 0.0667 wide."""

import jax
import numpy as np
import pytest

from vpns_jax.training.calibration import CalibrationError

# The bin from 0.867 to 0.933 holds two predictions, one of them correct: a gap of 1 - 1.82. The other two are alone in
# their bins: a correct one with confidence 0.62 (gap 0.38), and a wrong one with 0.58 (gap -0.58).
SURE = np.array([0.90, 0.92, 0.62, 0.58])
LOGITS = np.log(np.stack([SURE, 1 - SURE], axis=1).astype(np.float32))
LABELS, ONES = np.array([0, 1, 0, 1], np.int32), np.ones(4, bool)
# Compiled, because there is a program for each operation otherwise.
of = jax.jit(CalibrationError.from_model_output)


@pytest.mark.slow
def test_gaps_and_their_mean():
    seen = of(logits=LOGITS, labels=LABELS, mask=ONES)
    expected = np.zeros(15)
    expected[[13, 9, 8]] = 1 - 1.82, 0.38, -0.58
    np.testing.assert_allclose(seen.gap, expected, atol=1e-6)
    assert seen.compute() == pytest.approx((0.82 + 0.38 + 0.58) / 4, rel=1e-6)


@pytest.mark.slow
def test_one_who_is_sure_and_always_right_has_no_error():
    seen = of(logits=np.array([[200.0, 0.0]] * 3, np.float32), labels=np.zeros(3, np.int32), mask=np.ones(3, bool))
    assert float(seen.compute()) == 0
    wrong = of(logits=np.array([[200.0, 0.0]] * 3, np.float32), labels=np.ones(3, np.int32), mask=np.ones(3, bool))
    assert float(wrong.compute()) == 1
    assert float(wrong.gap[14]) == -3


@pytest.mark.slow
def test_batches_merge_to_the_whole_and_padding_weighs_nothing():
    logits = np.concatenate([LOGITS[2:], np.array([[np.nan, np.inf]], np.float32)])
    first = of(logits=LOGITS[:2], labels=LABELS[:2], mask=ONES[:2])
    rest = of(logits=logits, labels=np.append(LABELS[2:], np.int32(0)), mask=np.array([True, True, False]))
    whole = of(logits=LOGITS, labels=LABELS, mask=ONES)
    merged = CalibrationError.empty().merge(first).merge(rest)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), merged, whole)
    assert int(merged.count) == 4


def test_a_network_that_diverged_has_none():
    assert np.isnan(of(logits=LOGITS * np.nan, labels=LABELS, mask=ONES).compute())
    assert np.isnan(CalibrationError.empty().compute())
