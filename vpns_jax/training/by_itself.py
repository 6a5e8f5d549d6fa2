"""A pass of several, kept from running into the next one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from vpns_jax.training.metrics import Metrics
from vpns_jax.training.state import TrainState


def by_itself(run: Callable[[TrainState], tuple[TrainState, Metrics]], state: TrainState) -> tuple[TrainState, Metrics]:
    """`run(state)`, all of it done before what follows begins.

    XLA would put off a pass's update and keep its gradients beside the next pass's. A loop of one turn is an end that
    it respects, and updates its state in place. On GPUs the host would have to ask whether a loop goes on; there XLA is
    told that it has one turn, and makes it none.
    """
    turns = lax.platform_dependent(state.step, cuda=_one, rocm=_one, default=_one_unknown)
    return lax.fori_loop(0, turns, lambda _, carry: run(carry[0]), (state, Metrics.zero()))


def _one(step: jax.Array) -> jax.Array:
    return jnp.ones_like(step)


def _one_unknown(step: jax.Array) -> jax.Array:
    """One, which XLA cannot tell: it would unroll the loop."""
    return 1 + jnp.minimum(step, 0)
