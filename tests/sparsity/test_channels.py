"""Gates of channels: by hand, exact in number, and with the gradient that finite differences have."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpns_jax import models, sparsity, trees
from vpns_jax.errors import UserError
from vpns_jax.models.norm import BatchNorm
from vpns_jax.sparsity import ChannelPattern

# Two layers that write to one sum, one of them normalised; pairs of channels behind a layer with a companion; classes.
CHANNELS = (
    models.Channels((models.Writer("a/kernel", norm="n"), models.Writer("b/kernel", "b/bias"))),
    models.Channels((models.Writer("v/kernel", "v/bias"),), width=2, companions=(models.Writer("q/kernel", "q/bias"),)),
    models.Channels((models.Writer("head/kernel", "head/bias"),), fixed="its output channels are the classes"),
)
SHAPES = {
    "a": {"kernel": (1, 1, 4, 3)},
    "n": {"scale": (3,), "bias": (3,)},
    "b": {"kernel": (2, 3), "bias": (3,)},
    "v": {"kernel": (1, 4), "bias": (4,)},
    "q": {"kernel": (1, 4), "bias": (4,)},
    "head": {"kernel": (4, 2), "bias": (2,)},
}
PATTERN = ChannelPattern(channels=CHANNELS)


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return trees.unflatten(
        {path: rng.normal(size=shape).astype(np.float32) for path, shape in trees.flatten(SHAPES).items()}
    )


def kernels(tree, exclude=("head",)):
    return models.prunable(tree, exclude=exclude)


def lists(tree):
    return {path: leaf.tolist() for path, leaf in trees.flatten(tree).items()}


def test_a_channel_is_as_large_as_the_mean_of_all_its_weights():
    """Channel means: a 1, 3, 2; b 4, 0, 2; together (4 a + 2 b) / 6. Heads: (1 + 2 + 1 + 2) / 4 and (3 + 0) / 4."""
    found = {
        "a": {"kernel": np.tile(np.float32([1, -3, 2]), (1, 1, 4, 1))},
        "b": {"kernel": np.tile(np.float32([4, 0, -2]), (2, 1))},
        "v": {"kernel": np.float32([[1, -2, 3, 0]])},
        "q": {"kernel": np.float32([[1, 2, 0, 0]])},
    }
    sizes, scored = jax.jit(lambda found: (PATTERN.magnitude(found), PATTERN.scored(found)))(found)
    assert lists(sizes) == {"a/kernel": [2.0, 2.0, 2.0], "v/kernel": [1.5, 0.75]}
    assert lists(scored) == {"a/kernel": [1.0, 1.0, 1.0], "v/kernel": [1.0, 1.0]}


@pytest.mark.slow
def test_the_first_mask_of_learned_scores_keeps_the_same_share_of_every_layer():
    """However little magnitudes differ within a layer, or between layers."""
    rng = np.random.default_rng(0)
    found = {
        "a": {"kernel": rng.normal(size=(3, 3, 64, 20)).astype(np.float32)},
        "b": {"kernel": rng.normal(size=(2, 10)).astype(np.float32)},
    }
    alone = tuple(models.Channels((models.Writer(f"{name}/kernel"),)) for name in "ab")
    pattern = ChannelPattern(channels=alone)
    scores, sizes = jax.jit(
        lambda found: (pattern.first_scores(found), pattern.magnitude(sparsity.scaled_init(found)))
    )(found)
    for name in "ab":
        order = np.argsort(sizes[name]["kernel"])
        assert np.array_equal(np.argsort(scores[name]["kernel"]), order)
    kept = pattern.select(scores, sparsity.pruned_groups(pattern, found, 0.3))
    assert [int(kept[name]["kernel"].sum()) for name in "ab"] == [6, 3]
    total = sum(float(leaf.sum()) for leaf in jax.tree.leaves(sizes))
    assert sum(float(leaf.sum()) for leaf in jax.tree.leaves(scores)) == pytest.approx(total, rel=1e-5)


@pytest.mark.slow
def test_gate_and_mask_by_hand():
    """The gate is on what ends a channel, the mask on all that is its own; what is fixed is in neither."""
    values = {"a": {"kernel": np.float32([1, 0, 2])}, "v": {"kernel": np.float32([0, 3])}}
    keep = jax.tree.map(lambda x: x > 0, values)

    @jax.jit
    def by_pattern(values, keep, weights):
        mask = PATTERN.mask(keep, weights)
        return PATTERN.gate(values, weights), mask, PATTERN.kept(mask)

    gate, mask, kept = by_pattern(values, keep, weights())
    sums, pairs = [1.0, 0.0, 2.0], [0.0, 0.0, 3.0, 3.0]
    assert lists(gate) == {
        "n/scale": sums,
        "n/bias": sums,
        "b/kernel": [sums, sums],
        "b/bias": sums,
        "v/kernel": [pairs],
        "v/bias": pairs,
    }
    assert set(trees.flatten(mask)) == set(trees.flatten(SHAPES)) - {"head/kernel", "head/bias"}
    for path, leaf in trees.flatten(mask).items():
        expected = [False, False, True, True] if path[0] in "vq" else [True, False, True]
        assert np.array_equal(leaf, np.broadcast_to(expected, leaf.shape)), path
    assert lists(kept) == lists(keep)
    assert set(trees.flatten(sparsity.counted(mask))) == {"a/kernel", "b/kernel", "v/kernel", "q/kernel"}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, -0.5, 0.5, 1.0, -2.0]), min_size=5, max_size=5),
    density=st.floats(0.4, 1),
    allocation=st.sampled_from(["global", "uniform"]),
)
def test_exactly_so_many_channels_are_kept_and_none_smaller_than_a_pruned_one(values, density, allocation):
    pattern = ChannelPattern(allocation=allocation, channels=CHANNELS)
    values = np.array(values, np.float32)
    scores = {"a": {"kernel": values[:3]}, "v": {"kernel": values[3:]}}
    counts = sparsity.pruned_groups(pattern, kernels(weights()), density)
    keep = [np.asarray(x) for x in jax.tree.leaves(pattern.select(scores, counts))]
    if allocation == "uniform":
        assert [int(x.sum()) for x in keep] == [3 - int((1 - density) * 3), 2 - int((1 - density) * 2)]
    else:
        keep, size = np.concatenate(keep), np.abs(values)
        assert keep.sum() == 5 - int((1 - density) * 5)
        assert keep.all() or size[~keep].max() <= size[keep].min()


def test_counts_of_layers_stand_in_the_order_of_the_scores():
    """The first writer gives its name to scores that other kernels come before in the tree."""
    late = (models.Channels((models.Writer("v/kernel"),), companions=(models.Writer("a/kernel"),)),)
    pattern = ChannelPattern(allocation="uniform", channels=(*late, models.Channels((models.Writer("b/kernel"),))))
    found = {"a": {"kernel": jnp.ones((1, 8))}, "b": {"kernel": jnp.ones((1, 2))}, "v": {"kernel": jnp.ones((1, 8))}}
    assert sparsity.pruned_groups(pattern, found, 0.5) == (1, 4)
    assert [leaf.size for leaf in jax.tree.leaves(pattern.scored(found))] == [2, 8]


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ([models.Channels((models.Writer("b/kernel"),), fixed="it is what it is")], r"b/kernel \[2, 3\]: it is"),
        ([models.Channels((models.Writer("b/kernel"), models.Writer("gone/kernel")))], "shares .* with gone/kernel"),
        ([models.Channels((models.Writer("b/kernel"),), width=2)], "3 output channels are no multiple of 2"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(channels, message):
    found = {"b": {"kernel": jnp.ones((2, 3))}}
    with pytest.raises(UserError, match=message) as caught:
        sparsity.validate(ChannelPattern(channels=tuple(channels)), found, 0.5)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_wrong_is_no_users_fault():
    found = {"b": {"kernel": jnp.ones((2, 3))}, "c": {"kernel": jnp.ones((2, 4))}}
    together = models.Channels((models.Writer("b/kernel"), models.Writer("c/kernel")))
    with pytest.raises(ValueError, match="differ in output channels: b/kernel, c/kernel"):
        sparsity.validate(ChannelPattern(channels=(together,)), found, 0.5)
    with pytest.raises(ValueError, match="channels of c/kernel are not known"):
        sparsity.validate(ChannelPattern(channels=(models.Channels((models.Writer("b/kernel"),)),)), found, 0.5)


# --- learning --------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """A convolution and its normalisation plus a shortcut, then a layer of hidden units, then classes."""

    @nn.compact
    def __call__(self, x):
        y = BatchNorm(x.dtype, name="n")(nn.Conv(3, (3, 3), use_bias=False, name="a")(x), train=True)
        x = nn.gelu(y + nn.Dense(3, name="b")(x), approximate=False).mean((1, 2))
        return nn.Dense(2, name="head")(nn.gelu(nn.Dense(4, name="v")(x), approximate=False))


NET = (CHANNELS[0], models.Channels((models.Writer("v/kernel", "v/bias"),), width=2), CHANNELS[2])


@functools.cache
def made():
    """Random weights, and the loss of a network under gates, on batch statistics, with its gradient."""
    rng = np.random.default_rng(3)
    images = rng.normal(size=(4, 5, 5, 2))
    shapes = jax.eval_shape(Net().init, jax.random.key(0), images)["params"]
    params = jax.tree.map(lambda x: rng.normal(size=x.shape), shapes)
    pattern = ChannelPattern(channels=NET)

    def loss(gates):
        logits, _ = Net().apply({"params": pattern.put(params, gates)}, images, mutable=["batch_stats"])
        return -jax.nn.log_softmax(logits)[:, 0].mean()

    return params, pattern, jax.jit(loss), jax.jit(jax.grad(loss))


@pytest.fixture
def net():
    """What `made` makes, in float64."""
    with jax.enable_x64(True):
        yield made()


@pytest.mark.slow
@pytest.mark.parametrize("closed", [False, True])
def test_the_gates_gradient_is_that_of_finite_differences(net, closed):
    """Of open gates and of closed ones: a pruned channel is told, too, how the loss would like it."""
    params, pattern, loss, gradient_of = net
    gates = jax.device_get(pattern.scored(kernels(params)))
    assert lists(gates) == {"a/kernel": [1.0] * 3, "v/kernel": [1.0] * 2}
    if closed:
        gates = {"a": {"kernel": np.array([1.0, 0.0, 1.0])}, "v": {"kernel": np.array([0.0, 1.0])}}
    gradient = jax.device_get(gradient_of(gates))
    for name, i in [("a", 0), ("a", 1), ("a", 2), ("v", 0), ("v", 1)]:
        step = 1e-5 * np.eye(gates[name]["kernel"].size)[i]
        up, down = (loss({**gates, name: {"kernel": gates[name]["kernel"] + sign * step}}) for sign in (1, -1))
        slope = (float(up) - float(down)) / 2e-5
        assert abs(slope) > 1e-4
        assert float(gradient[name]["kernel"][i]) == pytest.approx(slope, rel=1e-5)


def test_a_mask_on_the_normalised_kernel_has_no_gradient(net):
    """Why gates stand behind the normalisation."""
    params, *_ = net
    images = np.random.default_rng(0).normal(size=(4, 5, 5, 2))

    def loss(m):
        scaled = {**params, "a": {"kernel": params["a"]["kernel"] * m[None, None, None]}}
        logits, _ = Net().apply({"params": scaled}, images, mutable=["batch_stats"])
        return -jax.nn.log_softmax(logits)[:, 0].mean()

    assert float(jnp.abs(jax.jit(jax.grad(loss))(np.ones(3))).max()) < 1e-3


@pytest.mark.slow
def test_learned_scores_get_the_gates_gradient_straight_through(net):
    _, pattern, loss, gradient_of = net
    values = {"a": {"kernel": [0.3, -0.1, -0.9]}, "v": {"kernel": [-0.2, 0.5]}}
    scores = jax.tree.map(lambda x: np.array(x, np.float32), values, is_leaf=lambda x: isinstance(x, list))

    def of_scores(scores):
        return loss(sparsity.attach_gradient(scores, pattern.select(scores, 2)))

    found = jax.jit(jax.grad(of_scores))(scores)
    closed = {"a": {"kernel": np.array([1.0, 0.0, 1.0])}, "v": {"kernel": np.array([0.0, 1.0])}}
    expected = jax.tree.map(lambda s, g: np.sign(s) * np.asarray(g), scores, gradient_of(closed))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), found, expected)
