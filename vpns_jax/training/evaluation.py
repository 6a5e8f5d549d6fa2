"""Whole splits through a network in eval mode: accuracy, calibration, and the counts that label mappings come from.

Batch by batch from the host, which waits for none of them: one small program a network serves every split.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vpns_jax.parallel import sharding
from vpns_jax.prompting import label_mapping
from vpns_jax.training.batches import Split
from vpns_jax.training.metrics import Evaluated
from vpns_jax.training.network import Network, Subnetwork, predict


class Evaluation(NamedTuple):
    """Metrics by name, without and with the prompt: float32 scalars; None for a network that has none."""

    plain: dict[str, jax.Array]
    prompted: dict[str, jax.Array] | None

    def both(self, name: str) -> dict[str, jax.Array | None]:
        """One of `metrics.Evaluated`, "plain" and "prompted"."""
        return {"plain": self.plain[name], "prompted": None if self.prompted is None else self.prompted[name]}


def evaluate(network: Network, subnetwork: Subnetwork, data: Split, *, batch_size: int) -> Evaluation:
    """Evaluates a network on a whole split, plain and, if it has a prompt, prompted; every image counts once.

    Args:
      network: the static half.
      subnetwork: the arrays.
      data: the split.
      batch_size: images in a batch; it makes no difference to the numbers but in the last digits.
    """
    ways = (False, True) if network.prompted else (False,)
    totals = [Evaluated.empty() for _ in ways]
    for images, labels, weights in data.eval_batches(batch_size):
        for i, prompted in enumerate(ways):
            source_logits = predict(network, subnetwork, images, prompted=prompted)
            totals[i] = _add(totals[i], source_logits, subnetwork.mapping, labels, weights)
    plain, *prompted_too = [total.compute() for total in totals]
    return Evaluation(plain, *(prompted_too or [None]))


def estimate_mapping(network: Network, subnetwork: Subnetwork, data: Split, *, batch_size: int) -> jax.Array:
    """Frequency label mapping of `subnetwork` on a whole split, with the prompt on if there is one: int32 [t].

    t is the size of the subnetwork's present mapping, whose values play no part.
    """
    counts: jax.Array | int = 0
    for images, labels, weights in data.eval_batches(batch_size):
        source_logits = predict(network, subnetwork, images, prompted=network.prompted)
        counts = counts + _count(source_logits, labels, weights, target_classes=subnetwork.mapping.size)
    return jnp.asarray(label_mapping.frequency(sharding.to_host(counts)))


@jax.jit
def _add(
    total: Evaluated, source_logits: jax.Array, mapping: jax.Array, labels: jax.Array, weights: jax.Array
) -> Evaluated:
    logits = label_mapping.apply(source_logits, mapping)
    return total.merge(Evaluated.of(logits=logits, labels=labels, mask=weights))


_count = functools.partial(jax.jit, static_argnames="target_classes")(label_mapping.count_predictions)
