"""`kth_smallest` is `numpy.partition`, bit for bit, on whatever floats there are."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from vpns_jax import sharding, sparsity

FLOATS = st.one_of(
    st.floats(width=32, allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-45, -1e-45, 1.1754942e-38, 3.4028235e38]),
)
# One shape for all examples, so that one compilation serves them.
LENGTH = 12
SELECT = jax.jit(sparsity.kth_smallest)


@settings(max_examples=200, deadline=None)
@given(st.lists(FLOATS, min_size=LENGTH, max_size=LENGTH), st.integers(1, LENGTH))
def test_equals_partition(values, k):
    x = np.array(values, np.float32)
    tree = {"a": x[:5].reshape(5, 1), "b": [x[5:6].reshape(()), x[6:]]}
    found, expected = np.asarray(SELECT(tree, k)), np.partition(x, k - 1)[k - 1]
    if expected == 0 and not expected.view(np.uint32) & 0x7FFFFFFF:
        assert found.view(np.uint32) & 0x7FFFFFFF == 0
    else:
        assert found.view(np.uint32) == expected.view(np.uint32)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**16 - 1), min_size=LENGTH, max_size=LENGTH), st.integers(1, LENGTH))
def test_bfloat16(patterns, k):
    x = np.array(patterns, np.uint16)
    # NaNs are left to their own test.
    x = np.where((x & 0x7F80 == 0x7F80) & (x & 0x7F != 0), 0, x).astype(np.uint16)
    wide = (x.astype(np.uint32) << 16).view(np.float32)
    found = SELECT([jnp.asarray(x.view(ml_dtypes.bfloat16))], k)
    assert found.dtype == jnp.bfloat16
    # Compared on the host: a device may take subnormal numbers for zero.
    bits = np.asarray(found).view(np.uint16).astype(np.uint32) << 16
    expected = np.partition(wide, k - 1)[k - 1].view(np.uint32)
    assert bits == expected or (bits | expected) == 0x80000000


@pytest.mark.parametrize("k", [1, 2, 500, 9_999, 10_000])
def test_many_ties(k):
    x = np.random.default_rng(0).integers(-3, 4, 10_000).astype(np.float32)
    assert SELECT({"w": x}, k) == np.partition(x, k - 1)[k - 1]


def test_one_element():
    assert sparsity.kth_smallest([np.float32(-2.5)], 1) == -2.5


def test_nan_comes_last():
    x = np.array([np.nan, -np.nan, np.inf, 1.0], np.float32)
    assert [float(SELECT([x], k)) for k in (1, 2)] == [1.0, np.inf]
    assert np.isnan(SELECT([x], 3))


def test_float16_and_mixed_dtypes():
    half, single = np.array([6e-8, 2.0], np.float16), np.array([1.0, -1.0], np.float32)
    assert sparsity.kth_smallest([half], 1).dtype == jnp.float16
    assert sparsity.kth_smallest([half], 1) == half[0]
    found = sparsity.kth_smallest([half, single], 2)
    assert found.dtype == jnp.float32
    assert found == np.float32(half[0])


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


@pytest.mark.parametrize("devices", [2, 8])
def test_sharded_trees_send_counts_only(devices):
    mesh = sharding.make_mesh(8, jax.devices()[:devices])
    x = np.random.default_rng(1).normal(size=(8, 1000)).astype(np.float32)
    tree = [jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))), np.float32([[0.5]])]
    everything = np.append(x.ravel(), np.float32(0.5))
    compiled = SELECT.lower(tree, 4321).compile()
    text = compiled.as_text()
    assert "all-gather" not in text
    assert " sort" not in text
    assert SELECT(tree, 4321) == np.partition(everything, 4320)[4320]
