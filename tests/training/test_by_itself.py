"""A pass that is told apart does what it did, once."""

import functools

import jax
import jax.numpy as jnp
import pytest

from vpns_jax.training.by_itself import by_itself
from vpns_jax.training.metrics import Metrics
from vpns_jax.training.state import TrainState


def double(state):
    """A pass that doubles what is learned."""
    return state.replace(learned=jax.tree.map(lambda x: 2 * x, state.learned)), Metrics.zero()


@pytest.fixture
def state():
    return TrainState(jnp.int32(3), {"scores": jnp.arange(4.0)}, (), {}, jnp.arange(2, dtype=jnp.int32))


def test_a_pass_is_run_once(state):
    after, _ = jax.jit(functools.partial(by_itself, double))(state)
    assert after.learned["scores"].tolist() == [0, 2, 4, 6]
    assert after.step == 3


@pytest.mark.parametrize(("platform", "asks"), [("cpu", True), ("tpu", True), ("cuda", False), ("rocm", False)])
def test_on_gpus_nothing_is_asked(state, platform, asks):
    """A loop of a known number of turns is none; of an unknown one it is an end to the pass."""
    text = jax.jit(functools.partial(by_itself, double)).trace(state).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.minimum" in text) == asks
