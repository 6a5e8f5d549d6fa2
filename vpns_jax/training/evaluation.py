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


@functools.partial(jax.jit, static_argnames=("network", "batch_size", "prompted"))
def evaluate(
    network: Network, subnetwork: Subnetwork, data: Resident, *, batch_size: int, prompted: bool
) -> Metrics:
    """Metrics over a whole split, prompted or plain; every image counts once."""

    def body(total: Metrics, batch: tuple[jax.Array, jax.Array]) -> tuple[Metrics, None]:
        indices, weights = batch
        seen = steps.eval_step(network, subnetwork, take_padded(data, indices), weights, prompted)
        return total.merge(seen), None

    return lax.scan(body, Metrics.zero(), padded_batches(data.size, min(batch_size, data.size)))[0]


def estimate_mapping(network: Network, subnetwork: Subnetwork, data: Resident, *, batch_size: int) -> jax.Array:
    """Frequency label mapping of `subnetwork` on a whole split with the prompt on: int32 [t].

    t is the size of the subnetwork's present mapping, whose values play no part.
    """
    counts = _count_predictions(network, subnetwork, data, batch_size=batch_size)
    return jnp.asarray(label_mapping.frequency(jax.device_get(counts)))


@functools.partial(jax.jit, static_argnames=("network", "batch_size"))
def _count_predictions(
    network: Network, subnetwork: Subnetwork, data: Resident, *, batch_size: int
) -> jax.Array:
    indices, weights = padded_batches(data.size, min(batch_size, data.size))

    def count(batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        return steps.count_step(network, subnetwork, take_padded(data, batch[0]), batch[1])

    # The first batch also tells the number of source classes; it is computed once.
    total = count((indices[0], weights[0]))
    return lax.scan(lambda sum_, batch: (sum_ + count(batch), None), total, (indices[1:], weights[1:]))[0]
