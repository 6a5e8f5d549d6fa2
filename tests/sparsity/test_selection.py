"""Every search algorithm finds the same k-th smallest as `numpy.partition`, bit for bit, for all kinds of floats."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpns_jax import sparsity
from vpns_jax.sparsity import selection
from vpns_jax.sparsity.selection import search

FLOATS = st.one_of(
    st.floats(width=32, allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-45, -1e-45, 1.1754942e-38, 3.4028235e38]),
)
# One shape for all examples, so that one compilation serves them.
LENGTH = 12


def sampling(*operands):
    """Interpolation that takes a sample of the smallest trees."""
    with mock.patch.object(search, "SAMPLE_FROM", 1):
        return search.interpolation(*operands)


# Of CPUs, `by_platform` takes `interpolation`.
SEARCHES = [search.by_platform, sampling, search.bisection, search.bisection_by_rows]
every_search = pytest.mark.parametrize("algorithm", SEARCHES, ids=lambda algorithm: algorithm.__name__)


@functools.partial(jax.jit, static_argnums=2)
def _select(leaves, k, algorithm):
    key, rank = selection.kth_smallest_key(leaves, k, algorithm)
    return selection.key_to_float(key, leaves[0].dtype), key, rank


def select(tree, k, algorithm):
    return np.asarray(_select(jax.tree.leaves(tree), np.int32(k), algorithm)[0])


def split(x):
    """A tree of LENGTH numbers."""
    return {"a": x[:5].reshape(5, 1), "b": [x[5:6].reshape(()), x[6:]]}


@pytest.mark.slow
@every_search
@settings(max_examples=100, deadline=None)
@given(values=st.lists(FLOATS, min_size=LENGTH, max_size=LENGTH), k=st.integers(1, LENGTH))
def test_equals_partition(algorithm, values, k):
    x = np.array(values, np.float32)
    kth, expected = select(split(x), k, algorithm), np.partition(x, k - 1)[k - 1]
    if expected == 0 and not expected.view(np.uint32) & 0x7FFFFFFF:
        assert kth.view(np.uint32) & 0x7FFFFFFF == 0
    else:
        assert kth.view(np.uint32) == expected.view(np.uint32)


@pytest.mark.slow
@every_search
@settings(max_examples=50, deadline=None)
@given(patterns=st.lists(st.integers(0, 2**16 - 1), min_size=LENGTH, max_size=LENGTH), k=st.integers(1, LENGTH))
def test_bfloat16(algorithm, patterns, k):
    x = np.array(patterns, np.uint16)
    # NaNs have a separate test.
    x = np.where((x & 0x7F80 == 0x7F80) & (x & 0x7F != 0), 0, x).astype(np.uint16)
    wide = (x.astype(np.uint32) << 16).view(np.float32)
    kth = select([x.view(ml_dtypes.bfloat16)], k, algorithm)
    assert kth.dtype == jnp.bfloat16
    # Compared on the host, because a device may flush subnormal numbers to zero.
    bits = kth.view(np.uint16).astype(np.uint32) << 16
    expected = np.partition(wide, k - 1)[k - 1].view(np.uint32)
    assert bits == expected or (bits | expected) == 0x80000000


@functools.cache
def distribution(name):
    """100,000 floats, enough to take a sample; many distributions differ from what interpolation assumes."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(100_000)
    drawn = {
        "normal": normal,
        "any scale": normal * 10.0 ** rng.integers(-44, 37, normal.size),
        "two clusters": np.where(normal > 0.5, 1e30, 1e-30) * (1 + 1e-6 * normal),
        "seven values": rng.integers(-3, 4, normal.size),
        "equal": np.full(normal.size, 0.25),
        # Each 64th slice of the leaf below has another scale, so that the sample is misleading.
        "biased sample": np.where(np.arange(normal.size) // 250 % 64 == 0, 1e9, 1) * normal,
    }
    return drawn[name].astype(np.float32)


# Of so many, `by_platform` takes a sample by itself.
@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [search.by_platform, search.bisection, search.bisection_by_rows])
@pytest.mark.parametrize("name", ["normal", "any scale", "two clusters", "seven values", "equal", "biased sample"])
def test_distributions(name, algorithm):
    x = distribution(name)
    # Bisection does not depend on the distribution, and takes as many passes for fewer.
    n = x.size if algorithm is search.by_platform else x.size // 10
    x = x[:n]
    for k in (1, 2, 500, n // 2, 9 * n // 10, n - 1, n):
        assert select([x.reshape(-1, 250)], k, algorithm) == np.partition(x, k - 1)[k - 1]


@pytest.mark.slow
@every_search
def test_rank_among_ties(algorithm):
    x = np.array([2, 1, 2, 3, 4, 2, 5, 5, 6, 7, 8, 9], np.float32)
    kth, key, rank = _select(jax.tree.leaves(split(x)), np.int32(3), algorithm)
    assert kth == 2
    # The key of a positive number is its bits.
    assert (key, rank) == (np.float32(2).view(np.int32), 2)


def test_one_element():
    assert sparsity.kth_smallest([np.float32(-2.5)], 1) == -2.5


def test_nan_comes_last():
    x = np.array([np.nan, -np.nan, np.inf, *range(1, 10)], np.float32)
    assert [float(select(split(x), k, search.by_platform)) for k in (9, 10)] == [9.0, np.inf]
    assert np.isnan(select(split(x), 11, search.by_platform))


def test_float16_and_mixed_dtypes():
    half, single = np.array([6e-8, 2.0], np.float16), np.array([1.0, -1.0], np.float32)
    assert sparsity.kth_smallest([half], 1).dtype == jnp.float16
    assert sparsity.kth_smallest([half], 1) == half[0]
    kth = sparsity.kth_smallest([half, single], 2)
    assert kth.dtype == jnp.float32
    assert kth == np.float32(half[0])


@pytest.mark.slow
def test_keys_are_odd_and_ordered():
    x = np.array([0.0, 1e-45, 1e-38, 1.0, 3.4028235e38, np.inf], np.float32)

    @jax.jit
    def keys(x):
        key = selection.order_key(x)
        back = selection.key_to_float(-key[1:])
        return key, selection.order_key(-x), selection.order_rank(x), selection.magnitude_rank(-x), back

    key, negative, rank, magnitude, back = (np.asarray(found) for found in keys(x))
    assert key[0] == 0
    assert (np.diff(key) > 0).all()
    assert (negative == -key).all()
    for found in (rank, magnitude):
        assert (found == key).all()
    assert (back.view(np.uint32) == (-x[1:]).view(np.uint32)).all()


@pytest.mark.slow
@every_search
def test_where_64_bits_are_enabled(algorithm):
    x = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    with jax.enable_x64(True):
        assert select([x], 60, algorithm) == np.sort(x, axis=None)[59]
        mask = sparsity.prune_smallest({"a": jnp.asarray(x)}, jnp.int32(60), algorithm)["a"]
    np.testing.assert_array_equal(mask, np.abs(x) > np.sort(np.abs(x), axis=None)[59])


def test_inside_a_scan_with_a_traced_k():
    x = np.random.default_rng(0).standard_normal((16, 64)).astype(np.float32)

    @jax.jit
    def scores_move(x, ks):
        return jax.lax.scan(lambda x, k: (x + 1, sparsity.kth_smallest([x], k)), x, ks)[1]

    expected = [np.sort((x + np.float32(i)).ravel())[k - 1] for i, k in enumerate((5, 700, 1024))]
    np.testing.assert_array_equal(scores_move(x, jnp.array([5, 700, 1024])), expected)


def test_one_compilation_serves_every_k():
    traces = []

    @jax.jit
    def select(tree, k):
        traces.append(k)
        return sparsity.kth_smallest(tree, k)

    x = np.arange(7, dtype=np.float32)
    assert [float(select([x], k)) for k in range(1, 8)] == list(range(7))
    assert len(traces) == 1


@pytest.mark.parametrize("k", [0, 4, -1])
def test_k_out_of_range(k):
    with pytest.raises(ValueError, match=r"3 elements allows 1 \.\.\. 3"):
        sparsity.kth_smallest([np.ones(3, np.float32)], k)


def test_refuses_other_dtypes_and_empty_trees():
    with pytest.raises(TypeError, match="int32"):
        sparsity.kth_smallest([np.ones(3, np.int32)], 1)
    with pytest.raises(ValueError, match="found 0"):
        sparsity.kth_smallest({}, 1)
