"""The two lines of the recipe in the loops of Flax NNX and Equinox."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from vpns_jax import sparsity
from vpns_jax.sparsity import Moves, RigL

# How the masks are found does not matter here.
pytestmark = pytest.mark.usefixtures("searched_by_sorting")
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


@pytest.mark.slow
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


@pytest.mark.slow
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
