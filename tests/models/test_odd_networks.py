"""Tiny networks that look like others, and what a trace says of them: what is not surely understood is fixed."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vpns_jax import models
from vpns_jax.models import folding
from vpns_jax.models.wiring import identity, keeps_zero, relu6

SIDE = 4


class Odd(nn.Module):
    """Some layers, and beside them a layer whose channels are free in any case."""

    body: Any

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        free = nn.Dense(3, name="rest")(nn.relu(dense("free", 5, images.mean((1, 2)))))
        return free + nn.Dense(3, name="head")(self.body(self, images))


def dense(name, width, x, **options):
    return nn.Dense(width, name=name, **options)(x)


def flat(images):
    return images.reshape(len(images), -1)


def tokens(images):
    return images.reshape(len(images), SIDE, -1)


def conv(name, width, images):
    return nn.Conv(width, (3, 3), padding="VALID", name=name)(images)


def behind(function):
    """A function behind a dense layer."""
    return lambda _, images: function(dense("a", 8, flat(images)))


def pair(function):
    """A function of the outputs of two dense layers."""
    return lambda _, images: function(dense("a", 8, flat(images)), dense("b", 8, flat(images)))


def normal(module, name, *shape):
    return module.param(name, nn.initializers.normal(), shape)


def vector(module, name, size=8):
    return normal(module, name, size)[None]


def by_sign(module, images):
    signs = vector(module, "signs")
    return jnp.where(signs > 0, dense("a", 8, flat(images)), 0.0)


def limited(module, images):
    x = dense("a", 8, flat(images))
    return lax.clamp(jnp.zeros_like(x), x, jnp.broadcast_to(normal(module, "limits", 8), x.shape))


def with_relu_of_bias(module, images):
    return dense("a", 8, flat(images), use_bias=False) + nn.relu(vector(module, "bias"))


def with_positive_norm(module, images):
    x = dense("a", 8, flat(images), use_bias=False)
    scale, bias = (vector(module, f"norm/{name}") for name in ("scale", "bias"))
    mean, var = (module.variable("batch_stats", f"norm/{name}", jnp.ones, (8,)).value[None] for name in ("mean", "var"))
    return (x - mean) * (abs(scale) * lax.rsqrt(var + 1e-5)) + bias


def mixed(module, images):
    return jnp.einsum("bnc,cnm->bmc", dense("a", 8, tokens(images)), normal(module, "mixing", 8, SIDE, 2)).mean(1)


def attention(module, images, *, gated):
    x = tokens(images)
    q, k, v = (dense(name, 16, x).reshape(*x.shape[:2], -1, 4) for name in "qkv")
    weights = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
    mean = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
    return (mean * q if gated else mean).reshape(*x.shape[:2], -1).mean(1)


def gated(module, images):
    scale = vector(module, "scale")
    return dense("a", 8, flat(images)) * nn.sigmoid(dense("b", 8, flat(images)) * scale)


def read_by_taps(other):
    def body(_, images):
        a = dense("a", 8, flat(images))
        both = jnp.concatenate([a, other(images)], axis=-1).reshape(len(images), 2, -1)
        return nn.DenseGeneral(5, axis=(-2, -1), name="g")(both)

    return body


def depthwise(_, images):
    x = conv("a", 8, images)
    return nn.Conv(8, (2, 2), feature_group_count=8, padding="VALID", name="dw")(x).mean((1, 2))


def beside_zeros(_, images):
    a, b, c = (dense(name, 8, flat(images)) for name in "abc")
    above, below = (jnp.concatenate(each, axis=-1)[:, None] for each in ([a, jnp.zeros_like(a)], [b, c]))
    return jnp.concatenate([above, below], axis=1).mean(1)


def pooled_parameter(module, images):
    """A bias that is also pooled, as no layer's own."""
    bias = vector(module, "bias")
    pooled = lax.reduce_window(bias, -jnp.inf, lax.max, (1, 2), (1, 2), "VALID")
    return (dense("a", 8, flat(images), use_bias=False) + bias) * nn.sigmoid(pooled.sum())


UNKNOWN_FACTOR = "mul combines its channels with numbers that no layer writes alone"
APART = "multiplies each of its channels by something else"
CASES = {
    "relu6 is no relu": (behind(nn.relu6), {"a": {"activation": relu6}}),
    "nor is a higher limit": (behind(lambda x: jnp.clip(x, 0, 10)), {"a": {"activation": keeps_zero}}),
    "limits on both sides": (behind(lambda x: jnp.clip(x, -8, 8)), {"a": {"activation": keeps_zero}}),
    "limits far away": (behind(lambda x: jnp.clip(x, -65504, 65504)), {"a": {"activation": keeps_zero}}),
    "relu of sums": (pair(lambda a, b: nn.relu(nn.relu(a) + b)), {"a": {"activation": keeps_zero}}),
    "integers": (behind(lambda x: x.astype(jnp.int32).astype(jnp.float32)), {"a": {"activation": keeps_zero}}),
    "truth values": (behind(lambda x: x.astype(bool).astype(jnp.float32)), {"a": {"activation": keeps_zero}}),
    "bfloat16": (behind(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32)), {"a": {"activation": identity}}),
    "channels chosen by parameters": (by_sign, {"a": "params/signs has numbers for its channels"}),
    "channels limited by parameters": (limited, {"a": "params/limits has numbers for its channels"}),
    "a function of a bias": (with_relu_of_bias, {"a": "params/bias is no bias and no part"}),
    "the absolute value of a scale": (with_positive_norm, {"a": "is no bias and no part of a batch normalization"}),
    "a quotient of layers": (pair(lambda a, b: a / b), {"a": "div combines", "b": "div combines"}),
    "a quotient that is never 0 / 0": (pair(lambda a, b: a / nn.softplus(b)), {"a": {"activation": keeps_zero}}),
    "a root mean square": (
        behind(lambda x: x / jnp.sqrt(jnp.square(x).mean(0, keepdims=True))),
        {"a": "div combines its channels"},
    ),
    "one with epsilon": (
        behind(lambda x: x / jnp.sqrt(1e-3 + jnp.square(x).mean(0, keepdims=True))),
        {"a": {"activation": keeps_zero}},
    ),
    "channels outermost": (
        lambda _, images: jax.vmap(lambda x: x.ravel(order="F"))(conv("a", 8, images)),
        {"a": "head/kernel reads only some of its channels"},
    ),
    "pixels swapped": (
        lambda _, images: lax.reshape(conv("a", 8, images), (len(images), 32), (0, 2, 1, 3)),
        {"a": {"positions": 4}},
    ),
    "attention": (lambda *each: attention(*each, gated=False), {"v": {"width": 4}}),
    "attention times queries": (lambda *each: attention(*each, gated=True), {"v": {"width": 4}}),
    "two layers at other taps": (
        read_by_taps(lambda images: dense("b", 8, flat(images))),
        {"a": "g reads several of its channels by one row", "b": "g reads several of its channels by one row"},
    ),
    "zeros at other taps": (read_by_taps(lambda images: jnp.zeros((2, 8))), {"a": "g reads several of its channels"}),
    "images at other taps": (
        read_by_taps(lambda images: flat(images)[:, :8]),
        {"a": "g reads several of its channels"},
    ),
    "a scaled factor": (gated, {"a": {"companions": ("b/kernel",), "vectors": ("scale",)}}),
    "an unknown factor": (behind(lambda x: x * jnp.cumsum(x, axis=0)), {"a": "cumsum"}),
    "numbers of the images": (
        lambda _, images: dense("a", 8, flat(images)) * flat(images)[:, :8],
        {"a": UNKNOWN_FACTOR},
    ),
    "a product of numbers of the images": (
        lambda _, images: jnp.einsum("bc,bc->bc", dense("a", 8, flat(images)), flat(images)[:, :8]),
        {"a": APART},
    ),
    "dot products with images": (
        lambda _, images: jnp.einsum("bnc,bnc->bc", dense("a", 12, tokens(images)), tokens(images)),
        {"a": APART},
    ),
    "channels chosen by images": (
        lambda _, images: jnp.where(flat(images)[:, :8] > 0, dense("a", 8, flat(images)), 0.0),
        {"a": "select_n combines its channels with numbers"},
    ),
    "one number for each image": (
        lambda _, images: dense("a", 8, flat(images)) * images.mean((1, 2, 3))[:, None],
        {"a": {"activation": keeps_zero}},
    ),
    "groups of channels": (
        lambda _, images: flat(dense("a", 12, flat(images)).reshape(-1, 3, 4) * images[:, 0, 0, :, None]),
        {"a": UNKNOWN_FACTOR},
    ),
    "a matrix for each channel": (mixed, {"a": APART}),
    "channels beside zeros": (
        beside_zeros,
        {"a": {"kernels": ("a/kernel", "b/kernel"), "readers": ("head/kernel",)}, "c": {"readers": ("head/kernel",)}},
    ),
    "a parameter that is pooled, too": (
        pooled_parameter,
        {"a": "params/bias has numbers for its channels that cannot"},
    ),
    "a stack": (pair(lambda a, b: jnp.stack([a, b], 1).mean(1)), {"a": {"kernels": ("a/kernel", "b/kernel")}}),
    "a stack that is flattened": (
        pair(lambda a, b: jnp.stack([a, b], 1).reshape(len(a), -1)),
        {"a": {"positions": 2, "kernels": ("a/kernel", "b/kernel")}},
    ),
    "tiles": (behind(lambda x: jnp.tile(x, (1, 3))), {"a": {"positions": 3}}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_only_looks_like_something_known_is_not_taken_for_it(case):
    body, expected = CASES[case]
    table = {each.name.removesuffix("/kernel"): each for each in models.channels(Odd(body), image_size=SIDE)}
    assert not table["free"].fixed
    for name, wanted in expected.items():
        if isinstance(wanted, str):
            assert wanted in table[name].fixed
            continue
        assert not table[name].fixed
        (reader,) = table[name].readers
        known = {
            "positions": reader.positions,
            "companions": tuple(writer.kernel for writer in table[name].companions),
            "readers": (reader.kernel,),
        }
        assert {key: known.get(key, getattr(table[name], key, None)) for key in wanted} == wanted


def shared_bias(module, images):
    bias = vector(module, "bias", 5)
    x = nn.relu(dense("a", 8, flat(images)))
    layers = (("c", x), ("e", flat(images)))
    return jnp.concatenate([nn.relu(dense(name, 5, each, use_bias=False) + bias) for name, each in layers], axis=-1)


def early_use(module, images):
    x = dense("c", 5, nn.relu(dense("a", 8, flat(images))), use_bias=False)
    return nn.relu(x) + nn.relu(x + vector(module, "bias", 5))


def shared_norm(module, images):
    norm = nn.BatchNorm(use_running_average=True, name="norm")
    x = nn.relu(dense("a", 8, flat(images)))
    return nn.relu(norm(dense("c", 5, x, use_bias=False))) + nn.relu(norm(dense("e", 5, flat(images), use_bias=False)))


@pytest.mark.parametrize("body", [shared_bias, early_use, shared_norm])
def test_constants_are_not_folded_into_what_is_not_the_readers_alone(body):
    table = {each.name: each for each in models.channels(Odd(body), image_size=SIDE)}
    assert table["a/kernel"].readers == (models.Reader("c/kernel"),)
    assert table["c/kernel"].fixed
    assert {(writer.bias, writer.norm) for writer in table["c/kernel"].writers} == {("", "")}


def test_only_zeros_pass_what_is_not_known():
    table = {each.name: each for each in models.channels(Odd(depthwise), image_size=SIDE)}
    channels = table["a/kernel"]
    assert [writer.kernel for writer in channels.writers] == ["a/kernel", "dw/kernel"]
    leaves = {f"params/{name}/kernel": np.zeros((3, 3, 3)) for name in ("a", "dw")}
    # The sum of all that is written is zero, but what the second layer reads is not.
    leaves |= {"params/a/bias": np.asarray([0, -1.5, 0]), "params/dw/bias": np.asarray([0, 1.5, 2])}
    (reading,) = folding.readings(channels, leaves)
    np.testing.assert_array_equal(reading.value, [0, np.nan, np.nan])
