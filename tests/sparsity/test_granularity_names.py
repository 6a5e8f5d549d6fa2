"""Granularities, patterns and densities: how they are written, and which are refused."""

import jax.numpy as jnp
import pytest

from tests.sparsity.granular import KERNELS, pattern
from vpns_jax import sparsity
from vpns_jax.errors import UserError


@pytest.mark.parametrize("text", ["weight", "kernel", "channel", "input_channel", "2:4", "1:16", "block:4x8"])
def test_granularities_read_as_they_are_written(text):
    assert str(sparsity.parse_granularity(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filter", "unknown granularity 'filter'; known: weight, kernel, channel, input_channel, N:M, block:AxB"),
        ("4:2", "keeps 4 of every 2 weights; N:M needs 1 <= N < M"),
        ("0:4", "keeps 0 of every 4"),
        ("4:4", "keeps 4 of every 4"),
        ("N:M", "needs numbers, such as 2:4"),
        ("block:0x4", "blocks without weights"),
        ("block:4", "unknown granularity 'block:4'"),
        ("2:4 ", "unknown granularity '2:4 '"),
    ],
)
def test_names_that_are_none(text, message):
    with pytest.raises(UserError, match=message.replace("'", ".")) as caught:
        sparsity.parse_granularity(text)
    assert "\n" not in str(caught.value)


def check(text, density, allocation="global"):
    sparsity.validate(pattern(text, allocation), KERNELS, density)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("3:8", 0.375), r"3:8 cannot prune conv/kernel \[2, 2, 4, 3\]: its 4 inputs are no multiple of 8; exclude"),
        (
            ("kernel", 0.5),
            r"fc/kernel \[4, 6\]: only convolutions .* have kernels of h x w; .* leave dense: fc/kernel$",
        ),
        (("block:2x3", 0.5), r"conv/kernel .*: blocks are for dense layers .* dense: conv/kernel, down/kernel$"),
        (("2:4", 0.4), "2:4 has density 0.5 and no other, found 0.4"),
        (("2:4", 0.5, "erk"), "allocation must be global or uniform"),
        (("weight", 0.5, "layerwise"), "unknown allocation 'layerwise'; known: global, uniform, erk"),
        (("weight", 0.0), r"density is 0.0; a density must lie in \(0, 1\]"),
        (("weight", 1.5), r"density is 1.5; a density must lie in \(0, 1\]"),
        (("weight", float("nan")), "density is nan"),
        (("channel", 0.1), r"keeps 2 of 12 groups \(granularity channel\), fewer than the 3 layers"),
        (("channel", 1e-17, "uniform"), r"density 1e-17 keeps none of 3 groups of a layer \(granularity channel\)"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        check(*arguments)
    assert "\n" not in str(caught.value)


def test_what_can_be_is_not_refused():
    check("channel", 0.25)
    check("channel", 0.2, "uniform")
    # Of three and six groups, int(0.9 * 3) and int(0.9 * 6) are pruned, and one is kept.
    check("channel", 0.1, "uniform")
    check("channel", 1e-9, "erk")
    check("1:4", 0.25, "uniform")


def test_a_vector_has_no_channels():
    with pytest.raises(UserError, match=r"bias \[3\]: it has no input and output axes"):
        sparsity.validate(pattern("channel"), {"bias": jnp.zeros(3)}, 0.5)
