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
from vpns_jax.training.calibration import Calibration
from vpns_jax.training.metrics import Metrics
from vpns_jax.training.network import Network, Subnetwork, predict


class Evaluation(NamedTuple):
    """Metrics and calibration without and with the prompt; None for a network that has none."""

    plain: Metrics
    prompted: Metrics | None
    plain_calibration: Calibration
    prompted_calibration: Calibration | None

    def accuracies(self) -> dict[str, jax.Array | None]:
        """Float32 scalars by name."""
        return {
            "plain": self.plain.accuracy,
            "prompted": None if self.prompted is None else self.prompted.accuracy,
        }

    def calibration_errors(self) -> dict[str, jax.Array | None]:
        """Float32 scalars by name; see `Calibration.error`."""
        prompted = self.prompted_calibration
        return {"plain": self.plain_calibration.error, "prompted": None if prompted is None else prompted.error}


def evaluate(network: Network, subnetwork: Subnetwork, data: Split, *, batch_size: int) -> Evaluation:
    """Both evaluations over a whole split; every image counts once."""
    ways = (False, True) if network.prompted else (False,)
    total = [(Metrics.zero(), Calibration.zero()) for _ in ways]
    for images, labels, weights in data.eval_batches(batch_size):
        for i, prompted in enumerate(ways):
            source_logits = predict(network, subnetwork, images, prompted=prompted)
            total[i] = _add(*total[i], source_logits, subnetwork.mapping, labels, weights)
    seen = (*total[0], *(total[1] if len(total) > 1 else (None, None)))
    return Evaluation(plain=seen[0], plain_calibration=seen[1], prompted=seen[2], prompted_calibration=seen[3])


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
    metrics: Metrics,
    calibration: Calibration,
    source_logits: jax.Array,
    mapping: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
) -> tuple[Metrics, Calibration]:
    logits = label_mapping.apply(source_logits, mapping)
    return (
        metrics.merge(Metrics.of(logits=logits, labels=labels, weights=weights)),
        calibration.merge(Calibration.of(logits=logits, labels=labels, weights=weights)),
    )


_count = functools.partial(jax.jit, static_argnames="target_classes")(label_mapping.count_predictions)
