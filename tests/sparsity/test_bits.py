"""Masks as bits: worked by hand, back bit for bit, and an eighth of the memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpns_jax import sparsity

# Eight parts of two: bytes 0 and 1 hold every part's first and second element.
SIXTEEN = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]


def test_packing_rows_worked_by_hand():
    keep = jnp.array([SIXTEEN] + [[0] * 16] * 16, bool).T
    found = sparsity.pack(keep)
    np.testing.assert_array_equal(found.bytes, [[0b10000001] + [0] * 16, [0b10000100] + [0] * 16])
    assert found.bytes.dtype == jnp.uint8
    np.testing.assert_array_equal(sparsity.unpack(found), keep)


def test_packing_columns_worked_by_hand():
    # There are more rows than columns, so rows stay.
    keep = jnp.array([SIXTEEN] + [[0] * 16] * 16, bool)
    found = sparsity.pack(keep)
    np.testing.assert_array_equal(found.bytes, [[0b10000001, 0b10000100]] + [[0, 0]] * 16)
    np.testing.assert_array_equal(sparsity.unpack(found), keep)


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (8, 3), (9, 3), (3, 3, 2, 64), (10, 5), (1000, 4)])
def test_what_was_packed_comes_back(shape):
    keep = jnp.asarray(np.random.default_rng(0).random(shape) < 0.3)
    tree = {"a": {"kernel": keep}, "b": {"kernel": ~keep}}
    packed = sparsity.pack(tree)
    found = sparsity.unpack(packed)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for path in tree:
        np.testing.assert_array_equal(found[path]["kernel"], tree[path]["kernel"])
        assert found[path]["kernel"].dtype == bool
    *rest, n, m = shape
    short, long = -(-min(n, m) // 8), max(n, m)
    assert packed["a"]["kernel"].bytes.shape == (*rest, *((short, long) if n <= m else (long, short)))


def test_no_mask_is_no_bits():
    assert sparsity.pack({}) == {} == sparsity.unpack({})
