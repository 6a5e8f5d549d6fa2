"""Whole splits through a network in eval mode: accuracy, and the counts that label mappings come from."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from vpns_jax.data.order import padded_batches
from vpns_jax.prompting import label_mapping
from vpns_jax.training import steps
from vpns_jax.training.batches import Resident, take_padded
from vpns_jax.training.forward import Network
from vpns_jax.training.metrics import Metrics
from vpns_jax.training.state import Subnetwork


@functools.partial(jax.jit, static_argnames=("network", "batch_size"))
def evaluate(network: Network, subnetwork: Subnetwork, data: Resident, *, batch_size: int) -> dict[str, Metrics | None]:
    """Metrics over a whole split, "plain" and "prompted"; every image counts once.

    "prompted" is None for a network without a prompt.
    """
    ways = {"plain": False} if network.prompt.kind == "none" else {"plain": False, "prompted": True}

    def body(total: dict[str, Metrics], batch: tuple[jax.Array, jax.Array]) -> tuple[dict[str, Metrics], None]:
        indices, weights = batch
        taken = take_padded(data, indices)
        seen = {way: steps.eval_step(network, subnetwork, taken, weights, prompted) for way, prompted in ways.items()}
        return {way: total[way].merge(seen[way]) for way in ways}, None

    start = {way: Metrics.zero() for way in ways}
    total, _ = lax.scan(body, start, padded_batches(data.size, min(batch_size, data.size)))
    return {"prompted": None, **total}


def estimate_mapping(network: Network, subnetwork: Subnetwork, data: Resident, *, batch_size: int) -> jax.Array:
    """Frequency label mapping of `subnetwork` on a whole split with the prompt on: int32 [t].

    t is the size of the subnetwork's present mapping, whose values play no part.
    """
    counts = _count_predictions(network, subnetwork, data, batch_size=batch_size)
    return jnp.asarray(label_mapping.frequency(jax.device_get(counts)))


@functools.partial(jax.jit, static_argnames=("network", "batch_size"))
def _count_predictions(network: Network, subnetwork: Subnetwork, data: Resident, *, batch_size: int) -> jax.Array:
    indices, weights = padded_batches(data.size, min(batch_size, data.size))

    def count(batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        return steps.count_step(network, subnetwork, take_padded(data, batch[0]), batch[1])

    # The first batch also tells the number of source classes; it is computed once.
    total = count((indices[0], weights[0]))
    return lax.scan(lambda sum_, batch: (sum_ + count(batch), None), total, (indices[1:], weights[1:]))[0]
