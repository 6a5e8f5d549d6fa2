"""Networks whose channels were found by tracing: gates close, and what is cut out does not matter."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from tests.models import dags, foreign
from vpns_jax import models
from vpns_jax.errors import UserError
from vpns_jax.models import equality, initializing
from vpns_jax.models.widths import Widths, width_of
from vpns_jax.trees import flatten, unflatten

SIDE = 8


def drawn(shapes, rng):
    """Variables whose every leaf matters."""

    def draw(path, leaf):
        if path.endswith("kernel"):
            return rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        if path.endswith(("scale", "var")):
            return rng.uniform(0.5, 1.5, leaf.shape)
        return rng.normal(size=leaf.shape) * 0.3

    return {path: np.asarray(draw(path, leaf), np.float32) for path, leaf in flatten(shapes).items()}


def silence(channels, leaves, rng):
    """Makes half of all channels dead: no weight into them, a gate of zero, or nobody who reads them."""
    for each in channels:
        if each.fixed:
            continue
        count = leaves[f"params/{each.name}"].shape[-1]
        dead, way = (np.repeat(draw(count // each.width), each.width) for draw in (rng.random, rng.random))
        written, gated, read = ((dead < 0.5) & (np.floor(3 * way) == i) for i in range(3))
        for writer in (*each.writers, *each.companions):
            leaves[f"params/{writer.kernel}"][..., written] = 0
            for path in ends(writer):
                leaves[path][..., gated] = 0
                if leaves[path].ndim == 1:
                    # Of the others without weights, some say a constant and some say nothing.
                    leaves[path][written & (rng.random(count) < 0.3)] = 0
        for reader in each.readers:
            leaves[f"params/{reader.kernel}"][..., rows(reader, leaves, read), :] = 0


def ends(writer):
    """The parameters that a gate multiplies."""
    paths = [f"{writer.norm}/scale", f"{writer.norm}/bias"] if writer.norm else [writer.kernel, writer.bias]
    return [f"params/{path}" for path in paths if path]


def rows(reader, leaves, dead):
    """The rows of a kernel that read dead channels."""
    chosen = np.zeros((reader.positions, leaves[f"params/{reader.kernel}"].shape[-2] // reader.positions), bool)
    chosen[:, reader.offset : reader.offset + dead.size] = dead
    return chosen.ravel()


def changed(channels, leaves, rng):
    """The same weights with closed gates for half of all channels, and with whatever else these channels have."""
    gated, other = ({path: leaf.copy() for path, leaf in leaves.items()} for _ in range(2))
    for each in channels:
        if each.fixed:
            continue
        dead = np.arange(leaves[f"params/{each.name}"].shape[-1]) // each.width % 2 == 0
        rest = [f"params/{writer.kernel}" for writer in (*each.writers, *each.companions) if writer.norm]
        rest += [path for writer in each.companions for path in ends(writer)]
        for path in (*rest, *(f"params/{path}" for path in each.vectors)):
            other[path][..., dead] += rng.normal(size=other[path][..., dead].shape)
        for reader in each.readers:
            other[f"params/{reader.kernel}"][..., rows(reader, leaves, dead), :] += 1
        for path in (path for writer in each.writers for path in ends(writer)):
            gated[path][..., dead] = other[path][..., dead] = 0
    return gated, other


@pytest.mark.slow
@pytest.mark.parametrize("network", foreign.NETWORKS)
def test_behind_closed_gates_is_nothing_and_dead_channels_can_be_cut_out(network):
    model, rng = foreign.NETWORKS[network], np.random.default_rng(0)
    # As many as shrinking compares, so that its program serves here.
    images = rng.normal(size=(len(equality.SCALES) * equality.IMAGES, SIDE, SIDE, 3))
    channels = models.channels(model, image_size=SIDE)
    leaves = drawn(initializing.shapes(model, image_size=SIDE), rng)
    first, second = (equality.logits(model, unflatten(tree), images) for tree in changed(channels, leaves, rng))
    assert first.std() > 0.01
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-5 * first.std())
    silence(channels, leaves, rng)
    before = equality.logits(model, unflatten(leaves), images)
    shrunk = models.shrink(model, unflatten(leaves), image_size=SIDE)
    assert shrunk.model.widths
    after = equality.logits(shrunk.model, shrunk.variables, images)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * before.std())
    again = models.shrink(shrunk.model, shrunk.variables, image_size=SIDE)
    assert again.model == shrunk.model


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_networks_compute_the_same_without_their_dead_channels(seed):
    rng = np.random.default_rng(seed)
    model = dags.draw(rng)
    images = rng.normal(size=(2, dags.SIDE, dags.SIDE, 3))
    try:
        channels = models.channels(model, image_size=dags.SIDE)
    except UserError:
        reject()
    layers = [[path.removesuffix("/kernel") for path in each.kernels] for each in channels]
    model = model.clone(firsts=tuple((layer, first) for first, *rest in layers for layer in rest))
    leaves = drawn(initializing.shapes(model, image_size=dags.SIDE), rng)
    silence(channels, leaves, rng)
    before = dags.run(model.nodes, model.flat, leaves, images)
    shrunk = models.shrink(model, unflatten(leaves), image_size=dags.SIDE)
    small = {path: np.asarray(leaf) for path, leaf in flatten(shrunk.variables).items()}
    after = dags.run(model.nodes, model.flat, small, images)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * max(before.std(), np.abs(before).max()))


class Doubled(nn.Module):
    """A hidden layer, and a part of the code that does not follow it."""

    part: Any
    widths: Widths = ()

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(width_of(self.widths, "hidden", 4), name="hidden")(images.mean((1, 2))))
        return nn.Dense(3, name="head")(self.part(x))


class FourHeads(nn.Module):
    """Attention whose code says how many heads there are, so that those that are left would get channels of others."""

    widths: Widths = ()

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.reshape(len(images), SIDE, -1)
        width = width_of(self.widths, "hidden", 8)
        query, key, value = (
            nn.Dense(width, name=name)(x).reshape(*x.shape[:2], 4, -1) for name in ("query", "key", "hidden")
        )
        weights = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", query, key))
        mean = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(*x.shape[:2], -1).mean(1)
        return nn.Dense(3, name="head")(mean)


def refusal_to_shrink(model, dead=2):
    leaves = drawn(initializing.shapes(model, image_size=SIDE), np.random.default_rng(0))
    leaves["params/hidden/kernel"][:, :dead] = leaves["params/hidden/bias"][:dead] = 0
    with pytest.raises(UserError) as refusal:
        models.shrink(model, unflatten(leaves), image_size=SIDE)
    assert len(str(refusal.value)) <= 400
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (
            lambda x: x * nn.Dense(x.shape[-1], name="other")(x).sum(-1, keepdims=True),
            "its params/other/bias is [2], not [4]; it must",
        ),
        (lambda x: x * jnp.ones((1, 4)), "built with the widths that are left, it fails (mul got incompatible shapes"),
        (lambda x: x / x.shape[-1], "without its dead channels the logits of random images (standard deviation 1)"),
        (lambda x: x * jnp.sqrt(-jnp.ones(())), "change by nan"),
    ],
)
def test_no_network_leaves_that_computes_something_else(part, reason):
    assert reason in refusal_to_shrink(Doubled(part))


def test_a_fixed_number_of_heads_is_refused():
    assert "without its dead channels the logits" in refusal_to_shrink(FourHeads(), dead=4)


class Plain(nn.Module):
    """A network without widths."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.Dense(3, name="head")(nn.relu(nn.Dense(4, name="hidden")(images.mean((1, 2)))))


def test_a_module_without_widths_cannot_be_made_smaller():
    with pytest.raises(UserError, match=r"Plain cannot be made smaller: its module has no field `widths`"):
        models.shrink(Plain(), {}, image_size=SIDE)
