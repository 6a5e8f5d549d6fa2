"""Updates of masked weights on eight devices: the masks of one device, and only counts are sent."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.sparsity.test_sharded import communication
from vpns_jax import sparsity
from vpns_jax.sparsity import GradualMagnitude, Moves, RigL

pytestmark = pytest.mark.slow

DENSITY = 0.3
MOVES = Moves(end=2, every=1)
A, B = jax.random.split(jax.random.key(0))
PARAMS = {
    "a": {"kernel": jax.random.normal(A, (16, 64)), "bias": jnp.ones(64)},
    "b": {"kernel": jax.random.normal(B, (64, 8))},
}
OPTIMIZERS = {
    "keep_mask": sparsity.keep_mask(optax.adam(1e-2), sparsity.topk_mask(sparsity.prunable(PARAMS), DENSITY)),
    "magnitude": sparsity.gradual(optax.adam(1e-2), DENSITY, GradualMagnitude(MOVES)),
    "RigL": sparsity.gradual(optax.adam(1e-2), DENSITY, RigL(MOVES)),
}


def mesh():
    return jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))


def split(leaf):
    """Splits the longest axis, along which masks are not packed."""
    longest = int(np.argmax(leaf.shape)) if leaf.ndim else 0
    spec = PartitionSpec(*[None] * longest, "fsdp") if leaf.ndim else PartitionSpec()
    return jax.device_put(leaf, NamedSharding(mesh(), spec))


def step_of(tx):
    def step(params, state):
        updates, state = tx.update(jax.tree.map(jnp.sin, params), state, params)
        return optax.apply_updates(params, updates), state

    return step


def run(tx, step, params, state):
    """The weights and the mask after four steps."""
    for _ in range(4):
        params, state = step(params, state)
    return jax.device_get((params, sparsity.current_mask(state, params)))


def assert_same(ours, expected):
    assert jax.tree.all(jax.tree.map(np.array_equal, ours, expected))


@pytest.fixture(scope="module", params=OPTIMIZERS)
def tx(request):
    return OPTIMIZERS[request.param]


@pytest.fixture(scope="module")
def on_one_device(tx):
    return run(tx, jax.jit(step_of(tx)), PARAMS, tx.init(PARAMS))


def test_on_split_weights(tx, on_one_device):
    begin = jax.tree.map(split, (PARAMS, tx.init(PARAMS)))
    # The weights stay as they are split. The first mask is split here, and would be at the first move otherwise.
    where = None, jax.tree.map(lambda leaf: leaf.sharding, begin[1])
    program = jax.jit(step_of(tx), out_shardings=where).lower(*begin).compile()
    sizes, shunned = communication(program.as_text())
    assert shunned == []
    # Counts below seven pivots, for each search; nothing at all where the mask rests.
    assert bool(sizes) == isinstance(begin[1], sparsity.GradualState)
    assert all(size <= 7 * 4 for size in sizes)
    assert_same(run(tx, program, *begin), on_one_device)


# RigL drops by magnitude, too.
@pytest.mark.parametrize("tx", ["keep_mask", "RigL"], indirect=True, scope="module")
def test_inside_shard_map(tx, on_one_device):
    """Each device has all weights there, and updates them in the same way."""
    everywhere = jax.shard_map(step_of(tx), mesh=mesh(), in_specs=PartitionSpec(), out_specs=PartitionSpec())
    begin = jax.device_put((PARAMS, tx.init(PARAMS)), NamedSharding(mesh(), PartitionSpec()))
    assert_same(run(tx, jax.jit(everywhere), *begin), on_one_device)
