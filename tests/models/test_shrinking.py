"""Shrunk networks: smaller, and equal in all that they say, whatever was dead and however it came to be."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from tests.models.dead import NETWORKS, check_equal, check_equal_in_place, compiled, drawn, images, silence, spread
from vpns_jax import models
from vpns_jax.errors import UserError
from vpns_jax.models.vit import HEAD_DIM
from vpns_jax.models.widths import Widths, width_of
from vpns_jax.trees import flatten, overlay, unflatten


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_a_pattern_of_dead_channels_shrinks_to_equal_logits(network):
    """Other patterns are in the next test, which compiles no smaller networks."""
    rng = np.random.default_rng(0)
    leaves = drawn(network, rng)
    silence(network, leaves, rng, rng.uniform(0.1, 0.7))
    variables = unflatten(leaves)
    shrunk = models.shrink(NETWORKS[network], variables, classes=(3, 1), round_to=int(rng.choice([1, 2, 4])))
    check_equal(network, variables, shrunk, [3, 1])


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1), round_to=st.sampled_from([1, 2, 3, 8]))
def test_what_is_left_computes_the_same_whatever_is_dead(network, seed, share, round_to):
    rng = np.random.default_rng(seed)
    leaves = drawn(network, rng)
    silence(network, leaves, rng, share)
    before = np.asarray(compiled(network)(unflatten(leaves), images()))
    shrunk = models.shrink(NETWORKS[network], unflatten(leaves), round_to=round_to)
    after = np.asarray(compiled(network)(spread(network, shrunk), images()))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * before.std())


def test_a_hidden_unit_that_says_a_constant_is_in_the_bias_of_what_read_it():
    network = "vit"
    leaves = drawn(network, np.random.default_rng(0))
    leaves["params/block_1/mlp/fc1/kernel"][:, 7] = 0
    row, bias = (np.copy(leaves[f"params/block_1/mlp/{name}"]) for name in ("fc2/kernel", "fc2/bias"))
    constant = float(leaves["params/block_1/mlp/fc1/bias"][7])
    shrunk = models.shrink(NETWORKS[network], unflatten(leaves))
    assert shrunk.model.widths == (("block_1/mlp/fc1", 4 * 2 * HEAD_DIM - 1),)
    smaller = flatten(shrunk.variables)
    expected = bias + constant * ndtr(constant) * row[7]
    np.testing.assert_allclose(smaller["params/block_1/mlp/fc2/bias"], expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(smaller["params/block_1/mlp/fc2/kernel"], np.delete(row, 7, axis=0))


def test_a_channel_of_a_residual_sum_goes_only_if_none_writes_to_it():
    network, rng = "basic", np.random.default_rng(0)
    leaves = drawn(network, rng)
    for channel, writers in {
        0: ["conv1"],
        1: ["conv1", "layer1_0/conv2"],
        2: ["conv1", "layer1_0/conv2", "layer1_1/conv2"],
    }.items():
        for conv in writers:
            norm = f"params/{conv.replace('conv', 'bn')}"
            leaves[f"{norm}/scale"][channel] = leaves[f"{norm}/bias"][channel] = 0
    shrunk = models.shrink(NETWORKS[network], unflatten(leaves))
    assert shrunk.model.widths == (("conv1", 7),)
    assert shrunk.kept["conv1"].tolist() == [0, 1, 3, 4, 5, 6, 7]
    check_equal_in_place(network, unflatten(leaves), shrunk)


@pytest.mark.slow
@pytest.mark.parametrize(("constants", "left"), [([0.0, -2.0], 6), ([0.0, 1.5], 7), ([0.25, 1.5], 7)])
def test_one_constant_stands_in_for_all_where_zeros_lie_around_an_image(constants, left):
    """Channels that say nothing after the ReLU go; of those that say something, one is kept."""
    network = "basic"
    leaves = drawn(network, np.random.default_rng(1))
    leaves["params/layer1_1/conv1/kernel"][..., :2] = 0
    leaves["batch_stats/layer1_1/bn1/mean"][:2] = 0
    leaves["params/layer1_1/bn1/bias"][:2] = constants
    shrunk = models.shrink(NETWORKS[network], unflatten(leaves))
    assert shrunk.model.widths == (("layer1_1/conv1", left),)
    check_equal_in_place(network, unflatten(leaves), shrunk)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["basic", "bottleneck", "vit"])
def test_a_branch_that_is_dead_is_gone(network):
    leaves = drawn(network, np.random.default_rng(2))
    kernels = {"basic": ["layer1_1/conv1"], "bottleneck": ["layer1_1/conv2"]}.get(
        network, ["block_0/attention/value", "block_1/mlp/fc1"]
    )
    for path in kernels:
        for leaf in ("kernel", "bias"):
            if f"params/{path}/{leaf}" in leaves:
                leaves[f"params/{path}/{leaf}"][...] = 0
        if network != "vit":
            leaves[f"params/{path.replace('conv', 'bn')}/bias"][...] = -3
    shrunk = models.shrink(NETWORKS[network], unflatten(leaves))
    gone = dict.fromkeys(kernels, 0) | ({"layer1_1/conv1": 0} if network == "bottleneck" else {})
    assert dict(shrunk.model.widths) == gone
    check_equal(network, unflatten(leaves), shrunk)
    # So small a network can be made anew, too.
    fresh = jax.eval_shape(shrunk.model.init, jax.random.key(0), images())
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, shrunk.variables)


def test_what_is_removed_leaves_more_to_remove_before_and_behind_it():
    network = "vgg_bn"
    leaves = drawn(network, np.random.default_rng(3))
    # conv2_1 reads only channel 0 of conv1_2, which reads only channel 5 of conv1_1.
    leaves["params/conv2_1/kernel"][:, :, 1:] = 0
    leaves["params/conv1_2/kernel"][:, :, np.arange(16) != 5, 0] = 0
    # fc1 reads nothing but what conv2_1 says without it: fc2's first four units are constants.
    leaves["params/fc1/kernel"][:, :4] = 0
    leaves["params/fc2/kernel"][4:, :4] = 0
    shrunk = models.shrink(NETWORKS[network], unflatten(leaves))
    assert dict(shrunk.model.widths) == {"conv1_1": 1, "conv1_2": 1, "fc1": 124, "fc2": 124}
    check_equal(network, unflatten(leaves), shrunk)


def test_a_mask_of_single_weights_leaves_dead_channels_too():
    network, model = "basic", NETWORKS["basic"]
    leaves, rng = drawn(network, np.random.default_rng(6)), np.random.default_rng(6)
    for path, leaf in leaves.items():
        if path.endswith("kernel"):
            # As after training: some channels are large, others small.
            leaf *= np.exp(1.5 * rng.normal(size=leaf.shape[-1]))
    params = unflatten(leaves)["params"]
    sizes = {}
    for density in (0.05, 0.01):
        kernels = flatten(models.prunable(params))
        least = np.quantile(np.concatenate([np.abs(leaf).ravel() for leaf in kernels.values()]), 1 - density)
        kept = {path: np.abs(leaf) > least for path, leaf in kernels.items()}
        masked = {**unflatten(leaves), "params": overlay(params, unflatten({p: kernels[p] * kept[p] for p in kept}))}
        shrunk = models.shrink(model, masked)
        for layer in ("layer1_0", "layer1_1", "layer2_0"):
            # Silent or unread, they are gone; of those that say a constant one may be left.
            written, read = (kept[f"{layer}/{conv}/kernel"] for conv in ("conv1", "conv2"))
            alive = int((written.any((0, 1, 2)) & read.any((0, 1, 3))).sum())
            assert alive < written.shape[-1]
            assert len(shrunk.kept[f"{layer}/conv1"]) <= alive + 1
        check_equal_in_place(network, masked, shrunk)
        sizes[density] = sum(leaf.size for leaf in jax.tree.leaves(shrunk.variables["params"]))
    assert sizes[0.01] < sizes[0.05] < sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("network", ["basic", "vgg_bn", "vit"])
def test_shrinking_again_removes_nothing(network):
    leaves = drawn(network, np.random.default_rng(7))
    silence(network, leaves, np.random.default_rng(8), 0.5)
    once = models.shrink(NETWORKS[network], unflatten(leaves))
    twice = models.shrink(once.model, once.variables)
    assert twice.model == once.model != NETWORKS[network]
    assert jax.tree.all(jax.tree.map(np.array_equal, once.variables, twice.variables))


class Plain(nn.Module):
    """A network of another package, with a parameter called as a counter, and a head of another name."""

    widths: Widths = ()
    num_classes: int = 3
    head: str = "head"

    @nn.compact
    def __call__(self, images):
        x = nn.relu(nn.Conv(width_of(self.widths, "conv", 4), (1, 1), name="conv")(images)).mean((1, 2))
        x = nn.Dense(self.num_classes, name=self.head)(x)
        return x * self.param("count", nn.initializers.constant(0.5), (1,))[None]


def plain(head="head", dtype=np.float32):
    """The module, and variables whose first channel is dead."""
    model = Plain(head=head)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    rng = np.random.default_rng(0)
    leaves = {path: rng.normal(size=leaf.shape).astype(dtype) for path, leaf in flatten(shapes).items()}
    leaves["params/conv/kernel"][..., 0] = leaves["params/conv/bias"][0] = 0
    return model, leaves


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
def test_variables_keep_their_dtypes_whatever_their_names(dtype):
    model, leaves = plain(dtype=dtype)
    smaller = flatten(models.shrink(model, unflatten(leaves), image_size=8).variables)
    assert {leaf.dtype for leaf in smaller.values()} == {np.dtype(dtype)}
    np.testing.assert_array_equal(smaller["params/count"], leaves["params/count"])
    np.testing.assert_array_equal(smaller["params/conv/kernel"], leaves["params/conv/kernel"][..., 1:])


def test_classes_are_kept_of_a_head_alone():
    model, leaves = plain(head="last")
    with pytest.raises(UserError, match="Plain has no layer `head`, whose rows `classes` names"):
        models.shrink(model, unflatten(leaves), classes=(0, 2), image_size=8)
    assert models.shrink(model, unflatten(leaves), image_size=8).model.widths == (("conv", 3),)


@pytest.mark.parametrize("round_to", [0, -8])
def test_widths_are_multiples_of_at_least_one(round_to):
    model, leaves = plain()
    with pytest.raises(UserError, match=f"round_to is {round_to}; it must be at least 1"):
        models.shrink(model, unflatten(leaves), round_to=round_to, image_size=8)
