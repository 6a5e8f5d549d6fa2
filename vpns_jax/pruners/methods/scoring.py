"""Gradients of the training loss at the pretrained weights, averaged over batches, for SNIP, Fisher and GraSP.

The label mapping must stay the one under which the scores were computed. Head rows of source classes outside of it get
no gradient, so they are pruned, and a later mapping must not use them.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import jax

from vpns_jax.options import Range, option
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.batches import Batch
from vpns_jax.training.metrics import cross_entropy
from vpns_jax.training.network import Network, Subnetwork, forward
from vpns_jax.training.stage import in_training_mode

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Options:
    """How SNIP, Fisher and GraSP score weights."""

    group: ClassVar[str] = "scoring"

    batches: int = option(
        10,
        "Training batches that the scores are averaged over.",
        Range(1, 1_000_000, "that is more than an epoch of any data set here"),
    )
    temperature: float = option(
        200.0,
        "GraSP divides the logits by this number.",
        Range(1e-6, 1e6, "", must="it must be above zero, from 1e-6 to 1e6: beyond, float32 sees no difference"),
    )


class TaskBatch(NamedTuple):
    """What the loss of a task is computed from, besides the weights.

    Attributes:
      source: the dense network, for all but its weights.
      temperature: the number by which logits are divided.
      batch: images, uint8 [b, h, w, c], and labels, int32 [b].
      rng: the key for a moving prompt and for dropout.
    """

    source: Subnetwork
    temperature: float
    batch: Batch
    rng: jax.Array


@dataclasses.dataclass(frozen=True)
class TaskLoss:
    """The cross-entropy of the prompted network on a batch, as a function of the weights. Hashable.

    Attributes:
      network: the static half of the network.
      train: whether batch statistics and dropout are used.
    """

    network: Network
    train: bool

    def __call__(self, weights: PyTree, on: TaskBatch) -> jax.Array:
        """Computes the mean loss, a float32 scalar; see `TaskBatch`."""
        images, labels = on.batch
        logits, _ = forward(
            self.network,
            weights=weights,
            mask={},
            batch_stats=on.source.batch_stats,
            prompt=on.source.prompt,
            images=images,
            mapping=on.source.mapping,
            train=self.train,
            rng=on.rng,
        )
        return cross_entropy(logits=logits / on.temperature, labels=labels)


def task_loss(problem: Problem) -> TaskLoss:
    """Makes the loss with which the first pass of stage prune would learn scores.

    Args:
      problem: the network, and how it is trained.

    Returns:
      The loss.
    """
    return TaskLoss(problem.network, in_training_mode(problem.prune, problem.preparation))


def task_batches(problem: Problem, source: Subnetwork, *, temperature: float) -> Iterator[TaskBatch]:
    """Draws the batches that weights are scored on; every call gives the same ones.

    Args:
      problem: the data, and the number of batches in its options.
      source: the dense network.
      temperature: the number by which logits are divided.

    Yields:
      What the loss is computed from.
    """
    for batch, rng in problem.batches(problem.options.batches):
        yield TaskBatch(source, temperature, batch, rng)
