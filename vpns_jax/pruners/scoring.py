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
    """Computes g, the gradient of the loss in the scored arrays, averaged over batches: one pass for each batch.

    Args:
      problem: the batches and the scored arrays.
      runner: counts the passes.
      source: the dense network.
      temperature: the number by which logits are divided.

    Returns:
      A tree like `problem.scored`.
    """
    count, train = problem.options.batches, problem.prune.batch_norm != "frozen"
    fixed = (problem.network, problem.pattern, train)
    total = jax.tree.map(jnp.zeros_like, problem.scored)
    for batch, rng in problem.batches(count):
        total = _add_gradient(*fixed, temperature, total, source, problem.scored, batch, rng)
    runner.spend("prune", count)
    return jax.tree.map(lambda x: x / count, total)


def mean_hessian_vector(
    problem: Problem, runner: Runner, source: Subnetwork, vector: PyTree, *, temperature: float
) -> PyTree:
    """Computes H v, the Hessian of the loss in the scored arrays times v, averaged over the same batches.

    H v is the derivative of the gradient along v. It costs two passes for each batch: the gradient and its tangent.

    Args:
      problem: the batches and the scored arrays.
      runner: counts the passes.
      source: the dense network.
      vector: v, a tree like `problem.scored`.
      temperature: the number by which logits are divided.

    Returns:
      A tree like `problem.scored`.
    """
    count, train = problem.options.batches, problem.prune.batch_norm != "frozen"
    fixed = (problem.network, problem.pattern, train)
    total = jax.tree.map(jnp.zeros_like, problem.scored)
    for batch, rng in problem.batches(count):
        total = _add_hessian_vector(*fixed, temperature, total, source, problem.scored, vector, batch, rng)
    runner.spend("prune", 2 * count)
    return jax.tree.map(lambda x: x / count, total)


def loss(
    network: Network,
    pattern: sparsity.Pattern,
    train: bool,
    temperature: float,
    source: Subnetwork,
    scored: PyTree,
    batch: Batch,
    rng: jax.Array,
) -> jax.Array:
    """Computes the cross-entropy of the prompted network on a batch, as a function of the scored arrays.

    Args:
      network: the static half.
      pattern: says which arrays are scored: the prunable weights, or the gates of channels.
      train: whether batch statistics and dropout are used.
      temperature: the number by which logits are divided.
      source: the dense network.
      scored: values to put in place of those of `source`.
      batch: images, uint8 [b, h, w, c], and labels, int32 [b].
      rng: the key for a moving prompt and for dropout.

    Returns:
      The mean loss, a float32 scalar.
    """
    images, labels = batch
    logits, _ = forward(
        network,
        weights=pattern.put(source.weights, scored),
        mask={},
        batch_stats=source.batch_stats,
        prompt=source.prompt,
        images=images,
        mapping=source.mapping,
        train=train,
        rng=rng,
    )
    return cross_entropy(logits=logits / temperature, labels=labels)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def _add_gradient(
    network: Network,
    pattern: sparsity.Pattern,
    train: bool,
    temperature: float,
    total: PyTree,
    source: Subnetwork,
    scored: PyTree,
    batch: Batch,
    rng: jax.Array,
) -> PyTree:
    gradient = jax.grad(loss, argnums=5)(network, pattern, train, temperature, source, scored, batch, rng)
    return jax.tree.map(jnp.add, total, gradient)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def _add_hessian_vector(
    network: Network,
    pattern: sparsity.Pattern,
    train: bool,
    temperature: float,
    total: PyTree,
    source: Subnetwork,
    scored: PyTree,
    vector: PyTree,
    batch: Batch,
    rng: jax.Array,
) -> PyTree:
    def gradient(scored: PyTree) -> PyTree:
        return jax.grad(loss, argnums=5)(network, pattern, train, temperature, source, scored, batch, rng)

    _, product = jax.jvp(gradient, (scored,), (vector,))
    return jax.tree.map(jnp.add, total, product)
