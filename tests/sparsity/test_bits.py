"""Packed masks: expected bytes by hand, exact round trips, and an eighth of the memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpns_jax import sparsity

# Eight parts of length two: byte 0 holds the first element of each part, byte 1 the second.
SIXTEEN = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]


def test_packing_rows_worked_by_hand():
    keep = jnp.array([SIXTEEN] + [[0] * 16] * 16, bool).T
    packed = sparsity.pack(keep)
    np.testing.assert_array_equal(packed.bytes, [[0b10000001] + [0] * 16, [0b10000100] + [0] * 16])
    assert packed.bytes.dtype == jnp.uint8
    np.testing.assert_array_equal(sparsity.unpack(packed), keep)


def test_packing_columns_worked_by_hand():
    # There are more rows than columns, so each row is packed.
    keep = jnp.array([SIXTEEN] + [[0] * 16] * 16, bool)
    packed = sparsity.pack(keep)
    np.testing.assert_array_equal(packed.bytes, [[0b10000001, 0b10000100]] + [[0, 0]] * 16)
    np.testing.assert_array_equal(sparsity.unpack(packed), keep)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (8, 3), (9, 3), (3, 3, 2, 64), (10, 5), (1000, 4)])
def test_what_was_packed_comes_back(shape):
    keep = jnp.asarray(np.random.default_rng(0).random(shape) < 0.3)
    tree = {"a": {"kernel": keep}, "b": {"kernel": ~keep}}
    packed = sparsity.pack(tree)
    unpacked = sparsity.unpack(packed)
    assert jax.tree.structure(unpacked) == jax.tree.structure(tree)
    for path in tree:
        np.testing.assert_array_equal(unpacked[path]["kernel"], tree[path]["kernel"])
        assert unpacked[path]["kernel"].dtype == bool
    *rest, n, m = shape
    short, long = -(-min(n, m) // 8), max(n, m)
    assert packed["a"]["kernel"].bytes.shape == (*rest, *((short, long) if n <= m else (long, short)))


def test_vectors_are_packed_too():
    keep = jnp.arange(11) % 3 == 0
    packed = sparsity.pack({"a": keep})
    assert packed["a"].bytes.shape == (2,)
    np.testing.assert_array_equal(sparsity.unpack(packed)["a"], keep)


def test_no_mask_is_no_bits():
    assert sparsity.pack({}) == {} == sparsity.unpack({})
