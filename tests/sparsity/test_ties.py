"""The share of a mask that ties decided, worked by hand for each way of ranking."""

import jax.numpy as jnp
import pytest

from vpns_jax import sparsity
from vpns_jax.models.wiring import Channels, Writer

# How the masks are found does not matter here.
pytestmark = pytest.mark.usefixtures("searched_by_sorting")


def share(scores, density, *, signed=False, **pattern):
    if "granularity" in pattern:
        pattern["granularity"] = sparsity.parse_granularity(pattern["granularity"])
    pattern = sparsity.Pattern(**pattern)
    kept = pattern.select(scores, pattern.amount(scores, density), signed=signed)
    return sparsity.tied_share(scores, kept, pattern, signed=signed)


@pytest.mark.slow
def test_single_weights_under_one_threshold():
    # In 3, 2, 2, 2, 1 three scores tie for two places. So ties decide two of the three kept weights.
    scores = {"a": jnp.asarray([3.0, -2.0, 2.0]), "b": jnp.asarray([2.0, 1.0])}
    assert share(scores, 0.6) == pytest.approx(2 / 3)
    # With signs, -2 and 1 are pruned and tie with no other score.
    assert share(scores, 0.6, signed=True) == 0
    assert share({"a": jnp.arange(4.0)}, 0.5) == 0


@pytest.mark.slow
def test_a_tie_between_layers_does_not_count_where_each_has_a_threshold():
    scores = {"a": jnp.asarray([[1.0], [2.0]]), "b": jnp.asarray([[2.0], [3.0]])}
    assert share(scores, 0.5) == pytest.approx(1 / 2)
    assert share(scores, 0.5, allocation="uniform") == 0
    # "a" keeps one of two equal scores, "b" the larger one.
    scores = {"a": jnp.asarray([[2.0], [2.0]]), "b": jnp.asarray([[2.0], [3.0]])}
    assert share(scores, 0.5, allocation="uniform") == pytest.approx(1 / 2)


def test_of_every_m_weights():
    # The columns are [4, 3, 2, 1], where nothing ties, and [1, 1, 1, 5], where one of the two kept ones does.
    scores = {"a": jnp.asarray([[4.0, 1.0], [3.0, 1.0], [2.0, 1.0], [1.0, 5.0]])}
    assert share(scores, 0.5, granularity="2:4") == pytest.approx(1 / 4)


def test_groups_of_weights_tie_by_their_means():
    # The filters' means are 2, 2, 3, 1; of the two that tie, one is kept.
    scores = {"a": jnp.asarray([[1.0, 2.0, 3.0, 0.0], [3.0, -2.0, 3.0, 2.0]])}
    assert share(scores, 0.5, granularity="channel") == pytest.approx(1 / 2)
    assert share(scores, 0.25, granularity="channel") == 0


def test_scores_of_channels():
    writer = Writer(kernel="a/kernel", bias="", norm="")
    pattern = sparsity.ChannelPattern(channels=(Channels(writers=(writer,), readers=()),))
    scores, kept = {"a": {"kernel": jnp.asarray([1.0, 1.0, 2.0])}}, {"a": {"kernel": jnp.asarray([False, True, True])}}
    assert sparsity.tied_share(scores, kept, pattern) == pytest.approx(1 / 2)
