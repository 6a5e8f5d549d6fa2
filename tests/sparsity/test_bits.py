"""Masks as bits: worked by hand, back bit for bit, and an eighth of the memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpns_jax import sparsity


def test_packing_worked_by_hand():
    # Eight parts of two rows: bytes 0 and 1 hold every part's first and second row.
    keep = jnp.array([[1], [0], [0], [0], [0], [1], [0], [0], [0], [0], [0], [0], [0], [0], [1], [1]], bool)
    found = sparsity.pack(keep)
    np.testing.assert_array_equal(found.bytes, [[0b10000001], [0b10000100]])
    assert found.bytes.dtype == jnp.uint8
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
    assert packed["a"]["kernel"].bytes.shape == (*rest, -(-n // 8), m)


def test_no_mask_is_no_bits():
    assert sparsity.pack({}) == {} == sparsity.unpack({})
