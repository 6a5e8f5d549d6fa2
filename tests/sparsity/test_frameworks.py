"""The two lines of the recipe in the loops of Flax NNX and Equinox, under `shard_map` and on split weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from vpns_jax import sparsity
from vpns_jax.sparsity import Moves, RigL

X = jax.random.normal(jax.random.key(3), (5, 4))
RULE = RigL(Moves(end=4, every=2))


class Net(nnx.Module):
    def __init__(self, rngs):
        self.a, self.norm, self.b = (
            nnx.Linear(4, 8, rngs=rngs),
            nnx.BatchNorm(8, rngs=rngs),
            nnx.Linear(8, 4, rngs=rngs),
        )

    def __call__(self, x):
        return self.b(nnx.relu(self.norm(self.a(x))))


def keep(params):
    return sparsity.keep_mask(optax.adamw(1e-2), sparsity.topk_mask(sparsity.prunable(params), 0.25))


def rigl(params):
    del params
    return sparsity.gradual(optax.adamw(1e-2), 0.25, RULE)


@pytest.mark.parametrize("transform", [keep, rigl])
def test_nnx_optimizer(transform):
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, transform(nnx.state(model, nnx.Param)), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda model: jnp.mean((model(X) - 1) ** 2))(model))

    for _ in range(2):
        step(model, optimizer)
    mask = sparsity.current_mask(optimizer.opt_state, nnx.state(model, nnx.Param))
    assert sum(int(leaf.sum()) for leaf in jax.tree.leaves(mask)) == 16
    for layer in ("a", "b"):
        assert np.all(np.asarray(getattr(model, layer).kernel)[~mask[layer]["kernel"][...]] == 0)


def test_equinox_module():
    model = eqx.nn.MLP(4, 4, 8, 1, key=jax.random.key(0))
    tx = keep(model)
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state):
        gradient = eqx.filter_grad(lambda model: jnp.mean((jax.vmap(model)(X) - 1) ** 2))(model)
        updates, state = tx.update(gradient, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state

    for _ in range(2):
        model, state = step(model, state)
    mask = sparsity.current_mask(state, model)
    assert [int((layer.weight != 0).sum()) for layer in model.layers] == [int(m.weight.sum()) for m in mask.layers]
    assert jax.tree.all(jax.tree.map(jnp.array_equal, sparsity.apply(model, mask).layers, model.layers))


@pytest.fixture(scope="module")
def one_device():
    return two_steps({"kernel": jax.random.normal(jax.random.key(1), (16, 24))})


def two_steps(params, wrap=lambda step: step):
    tx = rigl(params)

    def step(params, state):
        updates, state = tx.update(jax.tree.map(jnp.sin, params), state, params)
        return optax.apply_updates(params, updates), state

    step, state = jax.jit(wrap(step)), jax.jit(tx.init)(params)
    for _ in range(2):
        params, state = step(params, state)
    return params["kernel"]


def test_shard_map(one_device):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    whole = PartitionSpec()

    def wrap(step):
        return jax.shard_map(step, mesh=mesh, in_specs=whole, out_specs=whole)

    params = {"kernel": jax.random.normal(jax.random.key(1), (16, 24))}
    assert np.array_equal(two_steps(params, wrap), one_device)


def test_split_weights(one_device):
    mesh = jax.make_mesh((4,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    kernel = jax.random.normal(jax.random.key(1), (16, 24))
    split = jax.device_put(kernel, NamedSharding(mesh, PartitionSpec(None, "model")))
    after = two_steps({"kernel": split})
    assert np.array_equal(after, one_device)
    assert after.sharding.is_equivalent_to(split.sharding, 2)
