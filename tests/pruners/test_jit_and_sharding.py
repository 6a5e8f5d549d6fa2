"""Pruners of any model inside `jax.jit` and on weights that are split over devices: the same masks, bit for bit."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vpns_jax import pruners
from vpns_jax.errors import UserError

pytestmark = pytest.mark.slow

DENSITY = 0.3
KEY = jax.random.key(2)
RNG = np.random.default_rng(1)
PARAMS = {"a": {"kernel": RNG.normal(size=(6, 16))}, "b": {"kernel": RNG.normal(size=(16, 8))}}
PARAMS = jax.tree.map(lambda x: jnp.asarray(x.astype(np.float32)), PARAMS)
BATCHES = [jnp.asarray(RNG.normal(size=(8, 6)).astype(np.float32)) for _ in range(2)]


def apply(params, x):
    return nn.relu(x @ params["a"]["kernel"]) @ params["b"]["kernel"]


def loss(params, x):
    return jnp.mean((apply(params, x) - 1) ** 2)


PRUNERS = {
    "magnitude": lambda params, batches: pruners.magnitude(params, DENSITY),
    "random": lambda params, batches: pruners.random(params, DENSITY, KEY),
    "snip": lambda params, batches: pruners.snip(loss, params, batches, DENSITY),
    "fisher": lambda params, batches: pruners.fisher(loss, params, batches, DENSITY),
    "grasp": lambda params, batches: pruners.grasp(loss, params, batches, DENSITY),
    "synflow": lambda params, batches: pruners.synflow(apply, params, batches[0][:1], DENSITY, rounds=5),
}


@pytest.fixture(autouse=True)
def _world():
    """No mesh is in force, as in a user's own program."""


def split():
    """The weights, split along their last axes over eight devices, and the batches along their first."""
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(AxisType.Auto,))

    def put(x, *spec):
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))

    params = jax.tree.map(lambda leaf: put(leaf, *[None] * (leaf.ndim - 1), "devices"), PARAMS)
    return params, [put(x, "devices") for x in BATCHES]


def same(mask, other):
    return jax.tree.all(jax.tree.map(np.array_equal, mask, other))


@pytest.mark.parametrize("name", PRUNERS)
def test_split_weights_under_jit_give_the_mask_of_one_device(name):
    mask = PRUNERS[name](PARAMS, BATCHES)
    assert same(jax.jit(PRUNERS[name])(*split()), mask)
    # Of 96 + 128 weights.
    assert sum(int(np.asarray(leaf).sum()) for leaf in jax.tree.leaves(mask)) == 224 - int(0.7 * 224)


def test_inside_of_shard_map_whole_weights_have_the_mask_of_one_device():
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(AxisType.Auto,))
    whole = PartitionSpec()

    def prune(params, batches):
        return {name: PRUNERS[name](params, batches) for name in ("magnitude", "snip")}

    mapped = jax.shard_map(prune, mesh=mesh, in_specs=(whole, whole), out_specs=whole, check_vma=False)
    assert same(jax.jit(mapped)(PARAMS, BATCHES), prune(PARAMS, BATCHES))


def test_synflow_of_split_weights_outside_of_jit():
    """There it moves them to one device, and the masks back."""
    params, batches = split()
    mask = PRUNERS["synflow"](params, batches)
    assert same(mask, PRUNERS["synflow"](PARAMS, BATCHES))


def test_synflow_under_jit_is_one_loop_for_all_rounds():
    traced = []

    def counted(params, x):
        traced.append(1)
        return apply(params, x)

    jax.eval_shape(lambda params: pruners.synflow(counted, params, BATCHES[0][:1], DENSITY, rounds=50), PARAMS)
    # Once to look for a softmax, and once for all rounds.
    assert len(traced) == 2


def test_synflow_under_jit_needs_float64(monkeypatch):
    class Chip:
        platform = "tpu"

    monkeypatch.setattr(jax, "devices", lambda: [Chip()])
    with pytest.raises(UserError, match="needs float64, which TPUs lack"):
        jax.eval_shape(lambda params: PRUNERS["synflow"](params, BATCHES), PARAMS)


@pytest.mark.parametrize("name", PRUNERS)
def test_weights_may_be_constants_of_the_program(name):
    mask = jax.jit(lambda: PRUNERS[name](PARAMS, BATCHES))()
    assert same(mask, PRUNERS[name](PARAMS, BATCHES))
