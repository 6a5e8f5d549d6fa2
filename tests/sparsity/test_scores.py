"""Scores that cannot rank weights are refused, and ties are counted."""

import jax.numpy as jnp
import pytest

from vpns_jax import sparsity
from vpns_jax.errors import UserError


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}, "scores are all 0"),
        ({"a": jnp.full(3, 2.0)}, "scores are all 2"),
        ({"a": jnp.asarray([1.0, jnp.nan])}, "scores are not finite"),
        ({"a": jnp.asarray([1.0, -jnp.inf])}, "scores are not finite"),
    ],
)
def test_scores_that_tell_nothing_are_refused(scores, message):
    with pytest.raises(UserError, match=message) as caught:
        sparsity.check_scores(scores)
    assert "\n" not in str(caught.value)


def test_only_what_is_still_kept_counts():
    scores = {"a": jnp.asarray([1.0, 2.0, jnp.nan])}
    sparsity.check_scores(scores, {"a": jnp.asarray([True, True, False])})
    with pytest.raises(UserError, match="scores are all 1"):
        sparsity.check_scores(scores, {"a": jnp.asarray([True, False, False])})


def test_what_is_kept_and_not_zero():
    weights = {"a": jnp.asarray([0.0, 1.0, -2.0, 0.0]), "b": jnp.ones(2)}
    mask = {"a": jnp.asarray([True, True, False, False])}
    assert float(sparsity.nonzero(weights, mask)) == 0.25
    assert float(sparsity.nonzero(weights, {})) == 1
