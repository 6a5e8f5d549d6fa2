"""Workarounds for XLA change the compiled program, but no result."""

import functools

import jax
import jax.numpy as jnp
import pytest

from vpns_jax import xla


def double(tree):
    return jax.tree.map(lambda x: 2 * x, tree)


CARRY, STEP = {"scores": jnp.arange(4.0)}, jnp.int32(3)


@pytest.mark.parametrize("step", [0, 3])
def test_what_stands_by_itself_is_run_once(step):
    after = jax.jit(functools.partial(xla.by_itself, double))(CARRY, jnp.int32(step))
    assert after["scores"].tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize(("platform", "asks"), [("cpu", True), ("tpu", True), ("cuda", False), ("rocm", False)])
def test_on_gpus_nothing_is_asked(platform, asks):
    """A loop with a known number of turns disappears; one with an unknown number keeps its content separate."""
    traced = jax.jit(functools.partial(xla.by_itself, double)).trace(CARRY, STEP)
    assert ("stablehlo.minimum" in traced.lower(lowering_platforms=(platform,)).as_text()) == asks


def test_what_is_tied_is_computed_in_the_loop():
    """The doubled constant is not carried by the loop; it is computed in each turn."""

    def loop(constant, tie):
        def turn(total, _):
            held, total = xla.tied(constant, total) if tie else (constant, total)
            return total + jnp.sum(double(held)), None

        return jax.lax.scan(turn, jnp.float32(0), length=3)[0]

    for tie in (True, False):
        assert float(jax.jit(functools.partial(loop, tie=tie))(jnp.arange(4.0))) == 36
    text = jax.jit(functools.partial(loop, tie=True)).lower(jnp.arange(4.0)).as_text()
    assert "optimization_barrier" in text.split("stablehlo.while")[1]
