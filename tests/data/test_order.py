"""The order of images."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpns_jax.data import order
from vpns_jax.errors import UserError

KEY = jax.random.key(7)
# In one program each.
EPOCH_ORDER = jax.jit(order.epoch_order, static_argnums=(2, 3))


# A shape is a compilation: few examples.
@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(n=st.integers(1, 50), batch_size=st.integers(1, 50))
def test_an_epoch_is_a_permutation_less_its_remainder(n, batch_size):
    if batch_size > n:
        with pytest.raises(UserError, match=f"batch_size is {batch_size}.*{n} images"):
            order.epoch_order(KEY, 0, n, batch_size)
        return
    batches = np.asarray(EPOCH_ORDER(KEY, 0, n, batch_size))
    assert batches.shape == (n // batch_size, batch_size)
    assert batches.dtype == np.int32
    assert len(np.unique(batches)) == batches.size
    assert batches.min() >= 0
    assert batches.max() < n


def test_epochs_differ_and_depend_on_nothing_else():
    first = np.asarray(EPOCH_ORDER(KEY, 0, 20, 6))
    second = np.asarray(EPOCH_ORDER(KEY, 1, 20, 6))
    np.testing.assert_array_equal(second, EPOCH_ORDER(jax.random.key(7), 1, 20, 6))
    assert (first != second).any()
    assert (first != np.asarray(EPOCH_ORDER(jax.random.key(8), 0, 20, 6))).any()
    # Another epoch leaves out other images.
    assert set(range(20)) - set(first.ravel()) != set(range(20)) - set(second.ravel())


def test_epoch_may_be_traced():
    order_of = jax.jit(lambda epoch: order.epoch_order(KEY, epoch, 20, 6))
    np.testing.assert_array_equal(order_of(3), order.epoch_order(KEY, 3, 20, 6))


def test_batch_size_below_one_is_refused():
    with pytest.raises(UserError, match="batch_size is 0"):
        order.epoch_order(KEY, 0, 20, 0)


def test_padded_batches_by_hand():
    indices, weights = order.padded_batches(5, 2)
    np.testing.assert_array_equal(indices, [[0, 1], [2, 3], [4, 4]])
    np.testing.assert_array_equal(weights, [[1, 1], [1, 1], [1, 0]])
    assert indices.dtype == np.int32
    assert weights.dtype == np.float32


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(n=st.integers(1, 60), batch_size=st.integers(1, 60))
def test_padded_batches_see_every_image_once(n, batch_size):
    indices, weights = (np.asarray(x) for x in order.padded_batches(n, batch_size))
    assert indices.shape == weights.shape == (-(-n // batch_size), batch_size)
    np.testing.assert_array_equal(indices[weights == 1], np.arange(n))
    assert weights.sum() == n
    assert indices.min() >= 0
    assert indices.max() < n
