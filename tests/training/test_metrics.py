"""Losses and metrics, worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpns_jax.training import metrics
from vpns_jax.training.metrics import Evaluated, Metrics

# softmax of [log 3, 0] is [3/4, 1/4]; of [0, 0] it is [1/2, 1/2].
LOGITS = np.log(np.array([[3.0, 1.0], [3.0, 1.0], [1.0, 1.0]], np.float32))
LABELS = np.array([0, 1, 1], np.int32)
LOSSES = -np.log([3 / 4, 1 / 4, 1 / 2])

# Compiled, because there is a program for each operation otherwise.
of, evaluated, cross_entropy = map(jax.jit, (Metrics.of, Evaluated.of, metrics.cross_entropy))


@pytest.mark.slow
def test_cross_entropy_is_the_mean():
    assert cross_entropy(logits=LOGITS, labels=LABELS) == pytest.approx(LOSSES.mean())


@pytest.mark.slow
def test_gradient_is_softmax_minus_one_hot_over_the_batch():
    gradient = jax.jit(jax.grad(lambda x: cross_entropy(logits=x, labels=LABELS)))(LOGITS)
    expected = np.array([[-1 / 4, 1 / 4], [3 / 4, -3 / 4], [1 / 2, -1 / 2]]) / 3
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_loss_and_accuracy_by_hand():
    # Correct, wrong, and a tie, which counts as class 0 and so is wrong.
    computed = of(logits=LOGITS, labels=LABELS).compute()
    assert computed["loss"] == pytest.approx(LOSSES.mean())
    assert computed["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.slow
def test_padding_counts_nothing_whatever_it_holds():
    padded = np.concatenate([LOGITS, np.array([[np.nan, np.inf]], np.float32)])
    masked = evaluated(logits=padded, labels=np.append(LABELS, np.int32(0)), mask=np.array([True, True, True, False]))
    whole = evaluated(logits=LOGITS, labels=LABELS, mask=np.ones(3, np.float32))
    jax.tree.map(np.testing.assert_array_equal, masked, whole)


@pytest.mark.slow
def test_parts_merge_to_the_whole():
    merged = Metrics.empty()
    for part in (slice(0, 1), slice(1, 3)):
        merged = merged.merge(of(logits=LOGITS[part], labels=LABELS[part]))
    for name, value in of(logits=LOGITS, labels=LABELS).compute().items():
        assert merged.compute()[name] == pytest.approx(float(value), rel=1e-6)


def test_it_travels_through_jit_and_scan_with_exact_counts():
    def body(total: Metrics, _: None) -> tuple[Metrics, None]:
        return total.merge(Metrics.of(logits=LOGITS.astype(jnp.bfloat16), labels=LABELS)), None

    total = jax.jit(lambda: jax.lax.scan(body, Metrics.empty(), length=4)[0])()
    assert total.loss.total.dtype == jnp.float32
    assert (int(total.accuracy.total), int(total.accuracy.count)) == (4, 12)


def test_no_examples_have_no_mean():
    assert all(np.isnan(value) for value in Evaluated.empty().compute().values())
