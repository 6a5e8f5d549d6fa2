"""Channels found by tracing: equal to the tables, worked by hand, and refused where they are not known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from tests.models import foreign
from vpns_jax import models
from vpns_jax.errors import UserError
from vpns_jax.models import tracing
from vpns_jax.models.convnext import ConvNeXt
from vpns_jax.models.deit import DeiT
from vpns_jax.models.resnet import ResNet
from vpns_jax.models.vgg import VGG
from vpns_jax.models.vit import HEAD_DIM, ViT
from vpns_jax.models.wiring import gelu, keeps_zero, relu, silu, tanh_gelu

FAMILIES = {
    "basic": ResNet((2, 1, 2), "basic", 5, 1 / 16),
    "small stem": ResNet((1, 1), "basic", 5, 1 / 16, stem="small"),
    "bottleneck": ResNet((1, 3), "bottleneck", 5, 1 / 32),
    "vgg": VGG(((2, 64), (1, 96)), False, 5, 1 / 32),
    "vgg_bn": VGG(((2, 64), (1, 96)), True, 5, 1 / 32),
    "vit": ViT(8, 3 * HEAD_DIM, 2, 5),
    "deit": DeiT(8, 2 * HEAD_DIM, 1, 5),
    "convnext": ConvNeXt((1, 2), 5, 1 / 24),
    "vit in half precision": ViT(8, 2 * HEAD_DIM, 1, 5, dtype=jnp.bfloat16),
}


def comparable(channels):
    """Channels without what does not matter: the order of layers that are seen together, and the wording of reasons."""
    listed = []
    for each in channels:
        seen = sorted({reader.sums or len(each.writers) for reader in each.readers})
        first = [sum(number >= sums for sums in seen) for number in range(len(each.writers))]
        _, writers = zip(*sorted(zip(first, each.writers, strict=True)), strict=True)
        readers = sorted(reader._replace(sums=reader.sums or len(writers)) for reader in each.readers)
        listed.append(each._replace(writers=writers, readers=tuple(readers), fixed=str(bool(each.fixed))))
    return sorted(listed, key=lambda each: each.writers)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_trace_finds_what_the_tables_say(family):
    model = FAMILIES[family]
    found = tracing.traced(model, image_size=32)
    assert comparable(found) == comparable(models.channels(model))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "vgg16_bn"])
def test_a_trace_finds_what_the_tables_say_of_published_networks(name):
    """At their size, at which a VGG's last pool passes on what it gets; others only have more blocks than above."""
    model = models.create(name)
    assert comparable(tracing.traced(model, image_size=224)) == comparable(models.channels(model))


def found(name, side=8):
    return {
        each.name.removesuffix("/kernel"): each for each in models.channels(foreign.NETWORKS[name], image_size=side)
    }


def reading(kernel, **options):
    return models.Reader(f"{kernel}/kernel", **options)


def test_convnext_has_hidden_units_and_a_stream_that_layer_normalization_mixes():
    table = found("convnext")
    assert table["pwconv1_0"] == models.Channels(
        (models.Writer("pwconv1_0/kernel", "pwconv1_0/bias"),), (reading("pwconv2_0"),), activation=gelu
    )
    assert table["pwconv1_1"].activation is tanh_gelu
    kernels = tuple(f"{name}/kernel" for name in ("stem", "dw0", "pwconv2_0", "dw1", "pwconv2_1"))
    assert table["stem"].kernels == kernels
    assert table["stem"].fixed == "reduce_sum in stem_norm mixes its channels"
    assert table.keys() == {"stem", "pwconv1_0", "pwconv1_1", "head"}


def test_a_mixer_has_hidden_units_of_both_kinds():
    table = found("mixer")
    assert {name: (each.readers, each.activation) for name, each in table.items() if not each.fixed} == {
        f"{kind}1_{i}": ((reading(f"{kind}2_{i}"),), activation)
        for kind, activation in (("tokens", tanh_gelu), ("channels", silu))
        for i in range(2)
    }


def test_concatenated_channels_are_read_at_their_offsets():
    table = found("concatenated")
    # The dense layer reads 4 x 4 positions of 2 + 3 + 4 + 5 channels.
    assert table["a"].writers == (models.Writer("a/kernel", norm="a_bn", epsilon=1e-3),)
    assert table["a"].readers == (
        reading("c", padded=True),
        reading("d"),
        reading("fc", positions=16, offset=2),
    )
    assert table["b"].readers == (
        reading("c", padded=True, offset=3),
        reading("d", offset=3),
        reading("fc", positions=16, offset=5),
    )
    assert table["c"].readers == (reading("d", offset=7), reading("fc", positions=16, offset=9))
    assert table["d"].readers == (reading("fc", positions=16),)
    assert {each.activation for each in table.values() if not each.fixed} == {relu}


def test_offsets_move_with_the_widths_before_them():
    narrow = foreign.Concatenated(widths=(("a", 1), ("d", 1)))
    readers = {reader.kernel: reader for reader in models.channels(narrow, image_size=8)[1].readers}
    assert readers["c/kernel"].offset == 1
    assert readers["fc/kernel"].offset == 1 + 1


def test_depthwise_kernels_and_what_multiplies_channels_go_with_them():
    table = found("mobile")
    inner = table["expand0"]
    assert inner.writers == (
        models.Writer("expand0/kernel", norm="expand0_bn"),
        models.Writer("dw0/kernel", norm="dw0_bn"),
    )
    assert inner.companions == (models.Writer("excite0/kernel", "excite0/bias"),)
    assert inner.readers == (reading("squeeze0"), reading("project0"))
    assert inner.activation is keeps_zero
    assert table["stem"].vectors == ("scale0", "scale1")
    assert table["stem"].kernels == ("stem/kernel", "project0/kernel", "project1/kernel")


def test_attention_is_pruned_by_heads_and_its_stream_too_if_nothing_mixes_it():
    table = found("attending")
    query, key, value = (models.Writer(f"{name}0/kernel", f"{name}0/bias") for name in ("query", "key", "value"))
    assert table["value0"] == models.Channels((value,), (reading("out0"),), width=2, companions=(query, key))
    assert table["stem"].kernels == ("stem/kernel", "out0/kernel", "out1/kernel")
    assert [(each.kernel, each.sums) for each in table["stem"].readers][2:4] == [
        ("value0/kernel", 1),
        ("query1/kernel", 2),
    ]


class Odd(nn.Module):
    """A convolution, something, and a convolution with a batch normalization."""

    between: object

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = self.between(nn.Conv(4, (1, 1), name="first")(images))
        x = nn.Conv(5, (1, 1), name="second")(x)
        return nn.Dense(3, name="head")(nn.relu(x).mean((1, 2)))


def shuffled(x):
    return x.reshape(*x.shape[:-1], 2, 2).swapaxes(-1, -2).reshape(x.shape)


def grouped(x):
    return nn.Conv(4, (1, 1), feature_group_count=2, name="grouped")(x)


def sorted_channels(x):
    return jnp.sort(x, axis=-1)


def looped(x):
    return jax.lax.fori_loop(0, 2, lambda _, y: y * 2, x)


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (shuffled, "transpose puts its channels in another order"),
        # Together these leave channels where they were, but not if there are fewer of them.
        (lambda x: shuffled(shuffled(x)), "transpose puts its channels in another order"),
        (lambda x: jnp.concatenate([nn.relu(x[..., :2]), x[..., 2:]], axis=-1), "slice takes its channels apart"),
        (lambda x: x[..., ::-1], "rev puts its channels in another order"),
        (lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1))), "pad puts zeros among its channels"),
        (lambda x: jnp.roll(x, 1, axis=-1), "slice takes its channels apart"),
        (grouped, "conv_general_dilated in grouped has 2 groups of channels"),
        (lambda x: nn.softmax(x), "reduce_max mixes its channels"),
        (lambda x: nn.LayerNorm(name="norm")(x), "reduce_sum in norm mixes its channels"),
        (lambda x: nn.BatchNorm(True, use_bias=False, name="norm")(x), "batch_stats/norm/mean is no bias and no part"),
        (sorted_channels, "sort does something unknown with its channels"),
        (looped, "scan does something unknown with its channels"),
        (lambda x: x[..., :2] * x[..., 2:], "slice takes its channels apart"),
        (lambda x: x[..., jnp.asarray([3, 2, 1, 0])], "gather"),
        (nn.sigmoid, "second reads a function of its channels that does not keep zero"),
        (
            lambda x: x * jnp.arange(4.0)[None, None, None],
            "mul uses constants of the code, one for each of its channels",
        ),
        (lambda x: x @ jnp.eye(4), "mixes its channels by a constant, which is no kernel of a layer"),
        (lambda x: nn.BatchNorm(True, name="norm")(nn.relu(x)), "is added to its channels"),
        (lambda x: x + nn.relu(nn.BatchNorm(True, name="norm")(x)), "used before its bias or normalization, too"),
        (lambda x: nn.BatchNorm(True, name="a")(x) + nn.BatchNorm(True, name="b")(x), "used before its bias or norm"),
    ],
)
def test_channels_that_cannot_be_cut_out_are_fixed_with_a_reason(between, reason):
    first, *_ = channels = models.channels(Odd(between), image_size=4)
    assert first.name == "first/kernel"
    assert reason in first.fixed
    assert not first.readers
    # What lies behind does not suffer from it.
    (free,) = [each for each in channels if not each.fixed]
    assert free.kernels == ("second/kernel",)
    assert free.readers == (reading("head"),)


class Shuffled(nn.Module):
    """A network that shuffles all its channels."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.Dense(3, name="head")(shuffled(nn.Conv(4, (1, 1), name="only")(images)).mean((1, 2)))


class Broken(nn.Module):
    """A network that needs larger images."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.Dense(3, name="head")(images[:, :8].reshape(2, 8, 8, 3).mean((1, 2)))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            Shuffled(),
            r"no channel of Shuffled can be pruned as a whole: of only/kernel, transpose puts its",
        ),
        (Broken(), r"Broken cannot be traced with images of 4 px, so its channels are unknown"),
    ],
)
def test_a_network_is_refused_in_one_line(model, reason):
    with pytest.raises(UserError, match=reason) as refusal:
        models.channels(model, image_size=4)
    assert len(str(refusal.value)) <= 400
    assert "\n" not in str(refusal.value)


class Planes(nn.Module):
    """A feature map that is flattened channel by channel, as in PyTorch."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.Conv(4, (1, 1), name="planes")(images).transpose(0, 3, 1, 2)
        x = nn.relu(nn.Dense(5, name="flat")(x.reshape(x.shape[0], -1)))
        return nn.Dense(3, name="head")(x)


def test_rows_that_do_not_repeat_all_channels_are_left_alone():
    planes, flat, _ = models.channels(Planes(), image_size=4)
    assert planes.fixed == "flat/kernel reads only some of its channels, or in another order"
    assert flat.readers == (reading("head"),)


class Shared(nn.Module):
    """Two uses of one layer."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        layer = nn.Dense(3, name="shared")
        x = nn.relu(nn.Dense(4, name="free")(nn.relu(layer(nn.relu(layer(images))))))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


def test_a_layer_that_is_used_twice_keeps_its_channels():
    table = {each.name: each for each in models.channels(Shared(), image_size=4)}
    assert [name for name, each in table.items() if not each.fixed] == ["free/kernel"]
    assert table["shared/kernel"].fixed == "params/shared/kernel is used in several places"


def test_any_function_of_variables_and_images_can_be_traced():
    def network(variables, images):
        params = variables["params"]
        hidden = jax.nn.relu(images.reshape(images.shape[0], -1) @ params["a"]["kernel"] + params["a"]["bias"][None])
        return hidden @ params["b"]["kernel"]

    shapes = {"a": {"kernel": (12, 5), "bias": (5,)}, "b": {"kernel": (5, 2)}}
    params = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )
    hidden, classes = models.trace_channels(network, {"params": params}, (2, 2, 2, 3))
    assert hidden == models.Channels(
        (models.Writer("a/kernel", "a/bias"),), (models.Reader("b/kernel"),), activation=relu
    )
    assert classes.fixed == "its output channels are the classes"
