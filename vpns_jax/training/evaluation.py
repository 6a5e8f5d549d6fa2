"""Evaluates a network on whole splits, in eval mode: accuracy, calibration, and which classes are taken for which.

The host starts a few small programs for each batch and does not wait for them. They serve every split.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vpns_jax.parallel import sharding
from vpns_jax.prompting import label_mapping
from vpns_jax.training.batches import Split
from vpns_jax.training.metrics import Evaluated
from vpns_jax.training.network import Network, Subnetwork, predict, without_prompt


class Evaluation(NamedTuple):
    """The metrics of a network on a split.

    Attributes:
      plain: by name, without the prompt: float32 scalars, and "confusion" if it was asked for, int32 [t, t], how many
        images of each class (rows) were taken for each class.
      prompted: the same with the prompt; None for a network without a prompt.
    """

    plain: dict[str, jax.Array]
    prompted: dict[str, jax.Array] | None

    def both(self, name: str) -> dict[str, jax.Array | None]:
        """Selects one metric.

        Args:
          name: a field of `metrics.Evaluated`, or "confusion".

        Returns:
          Its values "plain" and "prompted".
        """
        return {"plain": self.plain[name], "prompted": None if self.prompted is None else self.prompted[name]}


def evaluate(
    network: Network, subnetwork: Subnetwork, data: Split, *, batch_size: int, confusion: bool = False
) -> Evaluation:
    """Evaluates a network on a whole split: plain and, if it has a prompt, prompted. Every image counts once.

    Args:
      network: the static half.
      subnetwork: the arrays.
      data: the split.
      batch_size: images in a batch; it changes only the last digits of the result.
      confusion: whether to count which classes are taken for which.

    Returns:
      The metrics.
    """
    ways = [(*without_prompt(network, subnetwork), False)]
    if network.prompted:
        ways.append((network, subnetwork, True))
    totals = [Evaluated.empty() for _ in ways]
    counts = [jnp.zeros((subnetwork.mapping.size,) * 2, jnp.int32) for _ in ways if confusion]
    for images, labels, weights in data.eval_batches(batch_size):
        for i, (way, arrays, prompted) in enumerate(ways):
            source_logits = predict(way, arrays, images, prompted=prompted)
            totals[i] = _add(totals[i], source_logits, subnetwork.mapping, labels, weights)
            if confusion:
                counts[i] = _tally(counts[i], source_logits, subnetwork.mapping, labels, weights)
    metrics = [total.compute() for total in totals]
    for values, matrix in zip(metrics, counts, strict=False):
        values["confusion"] = matrix
    plain, *prompted_too = metrics
    return Evaluation(plain, *(prompted_too or [None]))


def estimate_mapping(network: Network, subnetwork: Subnetwork, data: Split, *, batch_size: int) -> jax.Array:
    """Estimates the frequency label mapping on a whole split, prompted if the network has a prompt.

    Args:
      network: the static half.
      subnetwork: the arrays; of its mapping only the size t is used.
      data: the split.
      batch_size: images in a batch.

    Returns:
      The source class of each target class, int32 [t].
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


@jax.jit
def _tally(
    counts: jax.Array, source_logits: jax.Array, mapping: jax.Array, labels: jax.Array, weights: jax.Array
) -> jax.Array:
    logits = label_mapping.apply(source_logits, mapping)
    # What is counted is [prediction, label].
    return counts + label_mapping.count_predictions(logits, labels, weights, mapping.size).T


_count = functools.partial(jax.jit, static_argnames="target_classes")(label_mapping.count_predictions)
