"""The calibration error, worked by hand with fifteen bins, each 1/15 = 0.0667 wide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpns_jax.training.calibration import CalibrationError

# The bin from 0.867 to 0.933 holds two predictions, one of them correct: a gap of 1 - 1.82. The other two are alone in
# their bins: a correct one with confidence 0.62 (gap 0.38), and a wrong one with 0.58 (gap -0.58).
SURE = np.array([0.90, 0.92, 0.62, 0.58])
LOGITS = jnp.log(jnp.asarray(np.stack([SURE, 1 - SURE], axis=1), jnp.float32))
LABELS, ONES = jnp.array([0, 1, 0, 1]), jnp.ones(4, bool)


@pytest.mark.slow
def test_gaps_and_their_mean():
    seen = CalibrationError.from_model_output(logits=LOGITS, labels=LABELS, mask=ONES)
    expected = np.zeros(15)
    expected[[13, 9, 8]] = 1 - 1.82, 0.38, -0.58
    np.testing.assert_allclose(seen.gap, expected, atol=1e-6)
    assert seen.compute() == pytest.approx((0.82 + 0.38 + 0.58) / 4, rel=1e-6)


@pytest.mark.slow
def test_one_who_is_sure_and_always_right_has_no_error():
    seen = CalibrationError.from_model_output(
        logits=jnp.array([[200.0, 0.0]] * 3), labels=jnp.array([0, 0, 0]), mask=jnp.ones(3, bool)
    )
    assert float(seen.compute()) == 0
    wrong = CalibrationError.from_model_output(
        logits=jnp.array([[200.0, 0.0]] * 3), labels=jnp.array([1, 1, 1]), mask=jnp.ones(3, bool)
    )
    assert float(wrong.compute()) == 1
    assert float(wrong.gap[14]) == -3


@pytest.mark.slow
def test_batches_merge_to_the_whole_and_padding_weighs_nothing():
    logits = jnp.concatenate([LOGITS[2:], jnp.array([[jnp.nan, jnp.inf]])])
    first = CalibrationError.from_model_output(logits=LOGITS[:2], labels=LABELS[:2], mask=ONES[:2])
    rest = CalibrationError.from_model_output(
        logits=logits, labels=jnp.append(LABELS[2:], 0), mask=jnp.array([True, True, False])
    )
    whole = CalibrationError.from_model_output(logits=LOGITS, labels=LABELS, mask=ONES)
    merged = CalibrationError.empty().merge(first).merge(rest)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), merged, whole)
    assert int(merged.count) == 4


def test_a_network_that_diverged_has_none():
    assert np.isnan(CalibrationError.from_model_output(logits=LOGITS * jnp.nan, labels=LABELS, mask=ONES).compute())
    assert np.isnan(CalibrationError.empty().compute())
