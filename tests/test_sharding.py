"""One device or eight: the same masks, the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import tiny
from vpns_jax import sharding
from vpns_jax.errors import UserError
from vpns_jax.training import steps
from vpns_jax.training.evaluation import evaluate
from vpns_jax.training.loop import run_epoch


def epoch_on(count, stage, protocol):
    """One epoch on the first `count` devices."""
    mesh = sharding.make_mesh(tiny.BATCH, jax.devices()[:count])
    task = tiny.task(stage, protocol=protocol)
    with jax.set_mesh(mesh):
        state, fixed, data = sharding.replicate((*tiny.start(task), tiny.split()), mesh)
        state, metrics = run_epoch(task, state, fixed, data, jax.random.key(3), jnp.int32(0))
        network = steps.subnetwork(state, fixed)
        seen = evaluate(task.network, network, data, batch_size=tiny.BATCH)
        return jax.device_get((network.mask, state.learned, state.batch_stats, metrics, seen))


@pytest.mark.parametrize(("stage", "protocol"), [("prune", "paper"), ("retrain", "reference")])
def test_every_layout_agrees_with_one_device(stage, protocol):
    mask, *numbers = epoch_on(1, stage, protocol)
    for count in (2, 8):
        other_mask, *other = epoch_on(count, stage, protocol)
        assert tiny.same(other_mask, mask)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), other, numbers)


def test_a_batch_is_really_split():
    mesh = sharding.make_mesh(16, jax.devices()[:8])
    with jax.set_mesh(mesh):
        x = jax.jit(sharding.split_batch)(jnp.zeros((16, 3)))
    assert {shard.data.shape for shard in x.addressable_shards} == {(2, 3)}


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="batch_size is 12; 8 devices allow multiples of 8"):
        sharding.make_mesh(12, jax.devices()[:8])


def test_without_a_mesh_nothing_is_asked():
    x = jnp.arange(6)
    assert sharding.split_batch(x) is x
