"""Gradients of the training loss at the pretrained weights, averaged over batches: SNIP and GraSP score with them.

The label mapping must stay the one under which the scores were computed. Head rows of source classes outside of it get
no gradient, so they are pruned, and a later mapping must not use them.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from vpns_jax import sparsity
from vpns_jax.options import Range, option
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.batches import Batch
from vpns_jax.training.metrics import cross_entropy
from vpns_jax.training.network import Network, Subnetwork, forward
from vpns_jax.training.runner import Runner

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Options:
    """How SNIP and GraSP score weights."""

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


def mean_gradient(problem: Problem, runner: Runner, source: Subnetwork, *, temperature: float) -> PyTree:
    """Computes g, the gradient of the loss in the prunable weights, averaged over batches: one pass for each batch.

    Args:
      problem: the batches and the prunable weights.
      runner: counts the passes.
      source: the dense network.
      temperature: the number by which logits are divided.

    Returns:
      A tree like `problem.prunable`.
    """
    count, train = problem.options.batches, problem.prune.batch_norm != "frozen"
    total = jax.tree.map(jnp.zeros_like, problem.prunable)
    for batch, rng in problem.batches(count):
        total = _add_gradient(problem.network, train, temperature, total, source, problem.prunable, batch, rng)
    runner.spend("prune", count)
    return jax.tree.map(lambda x: x / count, total)


def mean_hessian_vector(
    problem: Problem, runner: Runner, source: Subnetwork, vector: PyTree, *, temperature: float
) -> PyTree:
    """Computes H v, the Hessian of the loss in the prunable weights times v, averaged over the same batches.

    H v is the derivative of the gradient along v. It costs two passes for each batch: the gradient and its tangent.

    Args:
      problem: the batches and the prunable weights.
      runner: counts the passes.
      source: the dense network.
      vector: v, a tree like `problem.prunable`.
      temperature: the number by which logits are divided.

    Returns:
      A tree like `problem.prunable`.
    """
    count, train = problem.options.batches, problem.prune.batch_norm != "frozen"
    total = jax.tree.map(jnp.zeros_like, problem.prunable)
    for batch, rng in problem.batches(count):
        total = _add_hessian_vector(
            problem.network, train, temperature, total, source, problem.prunable, vector, batch, rng
        )
    runner.spend("prune", 2 * count)
    return jax.tree.map(lambda x: x / count, total)


def loss(
    network: Network,
    train: bool,
    temperature: float,
    source: Subnetwork,
    prunable: PyTree,
    batch: Batch,
    rng: jax.Array,
) -> jax.Array:
    """Computes the cross-entropy of the prompted network on a batch, as a function of its prunable weights.

    Args:
      network: the static half.
      train: whether batch statistics and dropout are used.
      temperature: the number by which logits are divided.
      source: the dense network.
      prunable: the prunable weights, which replace those of `source`.
      batch: images, uint8 [b, h, w, c], and labels, int32 [b].
      rng: the key for a moving prompt and for dropout.

    Returns:
      The mean loss, a float32 scalar.
    """
    images, labels = batch
    logits, _ = forward(
        network,
        weights=sparsity.overlay(source.weights, prunable),
        mask={},
        batch_stats=source.batch_stats,
        prompt=source.prompt,
        images=images,
        mapping=source.mapping,
        train=train,
        rng=rng,
    )
    return cross_entropy(logits=logits / temperature, labels=labels)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _add_gradient(
    network: Network,
    train: bool,
    temperature: float,
    total: PyTree,
    source: Subnetwork,
    prunable: PyTree,
    batch: Batch,
    rng: jax.Array,
) -> PyTree:
    gradient = jax.grad(loss, argnums=4)(network, train, temperature, source, prunable, batch, rng)
    return jax.tree.map(jnp.add, total, gradient)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _add_hessian_vector(
    network: Network,
    train: bool,
    temperature: float,
    total: PyTree,
    source: Subnetwork,
    prunable: PyTree,
    vector: PyTree,
    batch: Batch,
    rng: jax.Array,
) -> PyTree:
    def gradient(prunable: PyTree) -> PyTree:
        return jax.grad(loss, argnums=4)(network, train, temperature, source, prunable, batch, rng)

    _, product = jax.jvp(gradient, (prunable,), (vector,))
    return jax.tree.map(jnp.add, total, product)
