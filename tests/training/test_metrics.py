"""Losses and counts worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpns_jax.training.metrics import Metrics, cross_entropy

# softmax of [log 3, 0] is [3/4, 1/4]; of [0, 0] it is [1/2, 1/2].
LOGITS = jnp.log(jnp.array([[3.0, 1.0], [3.0, 1.0], [1.0, 1.0]]))
LABELS = jnp.array([0, 1, 1])
LOSSES = -np.log([3 / 4, 1 / 4, 1 / 2])


def test_cross_entropy_is_the_mean():
    assert cross_entropy(logits=LOGITS, labels=LABELS) == pytest.approx(LOSSES.mean())


def test_cross_entropy_is_the_weighted_mean():
    loss = cross_entropy(logits=LOGITS, labels=LABELS, weights=jnp.array([1.0, 3.0, 0.0]))
    assert loss == pytest.approx((LOSSES[0] + 3 * LOSSES[1]) / 4)


def test_gradient_is_softmax_minus_one_hot_over_the_batch():
    gradient = jax.grad(lambda x: cross_entropy(logits=x, labels=LABELS))(LOGITS)
    expected = np.array([[-1 / 4, 1 / 4], [3 / 4, -3 / 4], [1 / 2, -1 / 2]]) / 3
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_sums_and_counts():
    # Right, wrong, and a tie that goes to class 0, so wrong.
    metrics = Metrics.of(logits=LOGITS, labels=LABELS)
    assert metrics.loss_sum == pytest.approx(LOSSES.sum())
    assert (float(metrics.correct), float(metrics.count)) == (1.0, 3.0)
    assert metrics.accuracy == pytest.approx(1 / 3)
    assert metrics.loss == pytest.approx(LOSSES.mean())


def test_padding_weighs_nothing_whatever_it_holds():
    padded = jnp.concatenate([LOGITS, jnp.array([[jnp.nan, jnp.inf]])])
    labels = jnp.append(LABELS, 0)
    weights = jnp.array([True, True, True, False])
    masked = Metrics.of(logits=padded, labels=labels, weights=weights)
    jax.tree.map(np.testing.assert_array_equal, masked, Metrics.of(logits=LOGITS, labels=LABELS))


def test_parts_merge_to_the_whole():
    whole = Metrics.of(logits=LOGITS, labels=LABELS)
    merged = Metrics.zero()
    for part in (slice(0, 1), slice(1, 3)):
        merged = merged.merge(Metrics.of(logits=LOGITS[part], labels=LABELS[part]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), merged, whole)


def test_it_travels_through_jit_and_scan_as_float32():
    def body(total: Metrics, _: None) -> tuple[Metrics, None]:
        return total.merge(Metrics.of(logits=LOGITS.astype(jnp.bfloat16), labels=LABELS)), None

    total = jax.jit(lambda: jax.lax.scan(body, Metrics.zero(), length=4)[0])()
    assert {leaf.dtype for leaf in jax.tree.leaves(total)} == {jnp.dtype("float32")}
    assert (float(total.correct), float(total.count)) == (4.0, 12.0)


def test_no_examples_have_no_mean():
    assert np.isnan(Metrics.zero().loss)
    assert np.isnan(Metrics.zero().accuracy)
