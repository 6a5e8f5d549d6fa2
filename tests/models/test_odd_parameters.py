"""Parameters that only look like a layer's own bias, or like factors that can be cut with its channels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from tests.models.test_odd_networks import SIDE, Odd, dense, flat, normal, tokens, vector
from vpns_jax import models

SEVERAL = "is used in several places"
CONSTANTS = "has numbers for its channels that cannot be cut out"


def table_of(body):
    table = {each.name.removesuffix("/kernel"): each for each in models.channels(Odd(body), image_size=SIDE)}
    assert not table["free"].fixed
    return table


def below(limit):
    """A limit that is zero or not, as a parameter's sign says."""

    def body(module, images):
        x, alpha = dense("a", 8, flat(images)), normal(module, "alpha")
        return limit(x, alpha)

    return body


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "limit",
    [
        lambda x, alpha: jnp.where(x > 0, x, nn.relu(alpha)),
        lambda x, alpha: lax.clamp(alpha, x, jnp.float32(6)),
        lambda x, alpha: lax.clamp(jnp.float32(-6), x, alpha),
    ],
)
def test_no_parameter_is_known_to_leave_zeros_alone(sign, limit):
    table = table_of(below(lambda x, alpha: limit(x, sign * alpha)))
    assert "combines its channels with what is no channel of a single layer" in table["a"].fixed


def test_slopes_below_zero_keep_zero():
    slopes = below(lambda x, alpha: jnp.where(x > 0, x, alpha * x))
    assert not table_of(slopes)["a"].fixed


@pytest.mark.parametrize("size", [8, 1])
def test_constants_of_the_code_stay_constants_behind_a_parameter(size):
    def body(module, images):
        constants = jnp.linspace(0.5, 1.5, 8)
        scale = jnp.broadcast_to(normal(module, "scale", size), constants.shape)
        return dense("a", 8, flat(images)) * (scale * constants)[None]

    assert f"params/scale {CONSTANTS}" in table_of(body)["a"].fixed


def test_one_constant_is_none_for_each_channel():
    def body(module, images):
        return dense("a", 8, flat(images)) * (normal(module, "scale", 8) * jnp.full(8, 0.5))[None]

    table = table_of(body)
    assert not table["a"].fixed
    assert table["a"].vectors == ("scale",)


@pytest.mark.parametrize("collection", ["constants", "batch_stats"])
def test_only_parameters_are_cut_with_channels(collection):
    def body(module, images):
        scale = module.variable(collection, "scale", jnp.ones, (8,)).value[None]
        return nn.relu(dense("a", 8, flat(images))) * scale

    assert table_of(body)["a"].fixed.startswith(f"{collection}/scale {CONSTANTS}")


def twice(h, bias):
    return nn.relu(h + bias + bias)


def with_both_signs(h, bias):
    return nn.relu(h + bias) + nn.relu(h - bias)


def with_both_signs_turned(h, bias):
    return nn.relu(h - bias) + nn.relu(h + bias)


@pytest.mark.parametrize("use", [twice, with_both_signs, with_both_signs_turned])
def test_a_bias_is_added_once(use):
    def body(module, images):
        x = nn.relu(dense("a", 8, flat(images)))
        return use(dense("c", 5, x, use_bias=False), vector(module, "bias", 5))

    table = table_of(body)
    assert table["c"].fixed
    # Nor can constants be added to it.
    assert table["c"].writers == (models.Writer("c/kernel"),)
    assert table["a"].readers == (models.Reader("c/kernel"),)


def test_a_normalization_has_one_epsilon():
    def body(module, images):
        x = dense("a", 8, flat(images), use_bias=False)
        scale, bias = (vector(module, f"norm/{name}") for name in ("scale", "bias"))
        mean, var = (
            module.variable("batch_stats", f"norm/{name}", jnp.ones, (8,)).value[None] for name in ("mean", "var")
        )
        parts = [nn.relu((x - mean) * (scale * lax.rsqrt(var + epsilon)) + bias) for epsilon in (1e-3, 1e-1)]
        return parts[0] + parts[1]

    channels = table_of(body)["a"]
    assert channels.fixed
    assert channels.writers == (models.Writer("a/kernel"),)


def read_as_features(module, images):
    """A factor that also stands beside the channels."""
    scale = vector(module, "scale")
    x = dense("a", 8, flat(images)) * scale
    return jnp.concatenate([x, jnp.broadcast_to(scale, x.shape)], axis=-1)


def put_beside(module, images):
    """A factor of one layer that is a token of another."""
    scale = normal(module, "scale", 8)
    x = jnp.concatenate([dense("b", 8, tokens(images)), jnp.broadcast_to(scale, (len(images), 1, 8))], axis=1)
    return jnp.concatenate([dense("a", 8, flat(images)) * scale[None], x.mean(1)], axis=-1)


def times_its_mean(module, images):
    """A factor whose mean multiplies the images."""
    scale = vector(module, "scale")
    return dense("a", 8, flat(images) * scale.mean()) * scale


def put_around(module, images):
    """A factor whose mean is put around what another layer writes."""
    scale = vector(module, "scale")
    x = lax.pad(dense("b", 8, tokens(images)), scale.mean(), ((0, 0, 0), (0, 1, 0), (0, 0, 0)))
    return jnp.concatenate([dense("a", 8, flat(images)) * scale, x.mean(1)], axis=-1)


def convolved(module, images):
    """A factor that another layer reads as if it were images."""
    scale = vector(module, "scale")
    x = nn.Conv(3, (1,), name="b")(scale[None])
    return jnp.concatenate([dense("a", 8, flat(images)) * scale, jnp.broadcast_to(x[0], (len(images), 3))], axis=-1)


@pytest.mark.parametrize("body", [read_as_features, put_beside, times_its_mean, put_around, convolved])
def test_a_factor_that_serves_elsewhere_is_not_cut(body):
    table = table_of(body)
    assert table["a"].fixed == f"params/scale {SEVERAL}"
    assert table["a"].vectors == ()


def test_heads_may_be_projected_in_any_order():
    def body(_, images):
        x = tokens(images)
        k, q, v = (dense(name, 16, x).reshape(*x.shape[:2], -1, 4) for name in "kqv")
        weights = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
        return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(*x.shape[:2], -1).mean(1)

    heads = table_of(body)["v"]
    assert heads.width == 4
    assert {writer.kernel for writer in heads.companions} == {"q/kernel", "k/kernel"}


class Typed(nn.Module):
    """A network whose number format is no field."""

    dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(4, name="hidden")(images.mean((1, 2))))
        return nn.Dense(3, name="head")(x)


def test_a_number_format_need_not_be_a_field():
    hidden, _ = models.channels(Typed(), image_size=SIDE)
    assert hidden.readers == (models.Reader("head/kernel"),)
