"""What may be pruned is found in any framework's tree, whose structure stays."""

import dataclasses

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import FrozenDict

from vpns_jax import models, sparsity, trees
from vpns_jax.errors import LONGEST, UserError


class Linen(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(7, 6, name="embed")(tokens)
        x = nn.LayerNorm()(nn.MultiHeadDotProductAttention(num_heads=2)(x, x))
        return nn.Dense(3)(nn.Conv(4, (3,))(x))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)])
        self.embed = nnx.Embed(5, 4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)


class Equinox(eqx.Module):
    patch_embed: eqx.nn.Conv2d
    token_embedding: eqx.nn.Embedding
    norm: eqx.nn.LayerNorm
    mlp: eqx.nn.MLP

    def __init__(self, key):
        self.patch_embed = eqx.nn.Conv2d(3, 4, 2, key=key)
        self.token_embedding = eqx.nn.Embedding(5, 4, key=key)
        self.norm = eqx.nn.LayerNorm((4, 4))
        self.mlp = eqx.nn.MLP(4, 2, 8, 1, key=key)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    w: jax.Array
    b: jax.Array


def chosen(tree, **options):
    selected = sparsity.prunable(tree, **options)
    assert type(selected) is type(tree)
    # The same structure, once None counts as a leaf.
    none_is_leaf = {"is_leaf": lambda leaf: leaf is None}
    dense = jax.tree.map(lambda leaf: 0, tree, **none_is_leaf)
    assert jax.tree.structure(jax.tree.map(lambda leaf: 0, selected, **none_is_leaf)) == jax.tree.structure(dense)
    return set(trees.named_leaves(selected))


@pytest.fixture(scope="module")
def linen():
    return jax.eval_shape(Linen().init, jax.random.key(0), jnp.zeros((1, 5), jnp.int32))["params"]


KERNELS = {f"MultiHeadDotProductAttention_0/{part}/kernel" for part in ("query", "key", "value", "out")} | {
    "Conv_0/kernel",
    "Dense_0/kernel",
}


def test_linen(linen):
    assert chosen(linen) == KERNELS
    assert chosen(FrozenDict(linen)) == KERNELS
    assert set(trees.flatten(models.prunable(linen))) == KERNELS


def test_nnx():
    params = nnx.eval_shape(lambda: nnx.state(Nnx(nnx.Rngs(0)), nnx.Param))
    assert chosen(params) == {"layers/0/kernel", "head/kernel"}


def test_equinox_with_its_functions():
    model = eqx.filter_eval_shape(Equinox, jax.random.key(0))
    assert chosen(model) == {"patch_embed/weight", "mlp/layers/0/weight", "mlp/layers/1/weight"}


def test_dataclasses_and_lists():
    tree = [Layer(jnp.ones((2, 3)), jnp.ones(3)), Layer(jnp.ones((3, 3)), jnp.ones(3))]
    assert chosen(tree) == {"0/w", "1/w"}


def test_globs_narrow_what_is_selected(linen):
    assert chosen(linen, include=["MultiHead*"], exclude=["*/out"]) == KERNELS - {
        "MultiHeadDotProductAttention_0/out/kernel",
        "Conv_0/kernel",
        "Dense_0/kernel",
    }
    only = chosen(linen, select=lambda path, leaf: leaf.shape == (7, 6))
    assert only == {"embed/embedding"}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"select": lambda path, leaf: False}, "nothing is selected to be pruned among .*; pass select="),
        ({"include": ["Densse"]}, "include pattern 'Densse' matches nothing; .*Dense_0/kernel"),
        ({"exclude": ["*"]}, "no kernel is left to prune"),
    ],
)
def test_mistakes_are_one_line(linen, options, line):
    with pytest.raises(UserError, match=line) as raised:
        sparsity.prunable(linen, **options)
    assert len(str(raised.value)) <= LONGEST
    assert "\n" not in str(raised.value)


def test_only_floats_with_axes_can_be_pruned():
    with pytest.raises(UserError, match=r"select= takes steps, which is int32 of shape \(2,\)"):
        sparsity.prunable({"steps": jnp.zeros(2, jnp.int32)}, select=lambda path, leaf: True)
    with pytest.raises(UserError, match=r"select= takes scale, which is float32 of shape \(\)"):
        sparsity.prunable({"scale": jnp.float32(1)}, select=lambda path, leaf: True)
    with pytest.raises(UserError, match="select= takes name, which is str"):
        sparsity.prunable({"name": "net"}, select=lambda path, leaf: True)


class Attention(eqx.Module):
    query: jax.Array
    key: jax.Array
    value: jax.Array


def test_only_variables_of_nnx_lend_their_path_to_their_value():
    tree = {"attn": Attention(jnp.ones((2, 2)), jnp.zeros((2, 2)), jnp.ones((2, 2)))}
    assert set(trees.named_leaves(tree)) == {"attn/query", "attn/key", "attn/value"}
    mask = sparsity.prunable(tree, select=lambda path, leaf: leaf.ndim == 2)
    mask = jax.tree.map(lambda leaf: leaf > 0, mask)
    tx = sparsity.keep_mask(optax.sgd(0.1), mask)
    after = sparsity.current_mask(jax.jit(tx.init)(tree), tree)
    assert not after["attn"].key.any()
    assert set(trees.named_leaves(nnx.Param(jnp.ones(2)))) == {""}
    assert set(trees.named_leaves({"a": nnx.Param({"value": jnp.ones(2)})})) == {"a/value"}


def test_dtypes_that_cannot_be_ranked_are_refused():
    with pytest.raises(UserError, match=r"a/kernel is float8_e4m3fn; only float32, bfloat16 and float16"):
        sparsity.prunable({"a": {"kernel": jax.ShapeDtypeStruct((2, 2), jnp.float8_e4m3fn)}})
    # A NumPy array of float64 becomes float32 in JAX, unless 64 bits are allowed.
    double = {"a": {"kernel": np.ones((2, 2))}}
    assert sparsity.prunable(double) == double
    with jax.enable_x64(True), pytest.raises(UserError, match="a/kernel is float64"):
        sparsity.prunable(double)
