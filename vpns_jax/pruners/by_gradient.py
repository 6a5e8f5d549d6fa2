"""SNIP and GraSP: one score for each weight, from gradients of the training loss at the pretrained start.

The label mapping is the one that the scores were taken with: head rows of source classes outside of it get no
gradient, so they are pruned, and no mapping found later may lead to them.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax import sparsity
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.forward import Network, forward
from vpns_jax.training.metrics import cross_entropy
from vpns_jax.training.state import Subnetwork
from vpns_jax.training.steps import Batch

PyTree = Any


def snip(problem: Problem) -> Subnetwork:
    """Keeps the weights that the loss feels most, |w g| (Lee et al., arXiv 1810.02340)."""
    source = problem.dense()
    gradient = mean_gradient(problem, source, temperature=1.0)
    scores = sparsity.connection_sensitivity(problem.kernels, gradient)
    return dataclasses.replace(source, mask=problem.keep(scores))


def grasp(problem: Problem) -> Subnetwork:
    """Keeps the weights whose removal costs most gradient flow, w (H g) (Wang et al., arXiv 2002.07376)."""
    source, temperature = problem.dense(), problem.settings.temperature
    gradient = mean_gradient(problem, source, temperature=temperature)
    hessian_gradient = mean_hessian_vector(problem, source, gradient, temperature=temperature)
    scores = sparsity.gradient_flow(problem.kernels, hessian_gradient)
    return dataclasses.replace(source, mask=problem.keep(scores, signed=True))


def mean_gradient(problem: Problem, source: Subnetwork, *, temperature: float) -> PyTree:
    """g: the loss's gradient in the kernels, averaged over the problem's batches. One pass for each batch."""
    total, count = jax.tree.map(jnp.zeros_like, problem.kernels), 0
    for batch, rng in problem.batches():
        total = _add_gradient(problem.network, problem.train, temperature, total, source, problem.kernels, batch, rng)
        count += 1
    problem.spend(count)
    return jax.tree.map(lambda x: x / count, total)


def mean_hessian_vector(problem: Problem, source: Subnetwork, vector: PyTree, *, temperature: float) -> PyTree:
    """H v: the loss's Hessian in the kernels times a tree like them, averaged likewise.

    It is the derivative of the gradient along v, and costs two passes for each batch: one and its tangent.
    """
    total, count = jax.tree.map(jnp.zeros_like, problem.kernels), 0
    for batch, rng in problem.batches():
        total = _add_hessian_vector(
            problem.network, problem.train, temperature, total, source, problem.kernels, vector, batch, rng
        )
        count += 1
    problem.spend(2 * count)
    return jax.tree.map(lambda x: x / count, total)


def loss(
    network: Network,
    train: bool,
    temperature: float,
    source: Subnetwork,
    kernels: PyTree,
    batch: Batch,
    rng: jax.Array,
) -> jax.Array:
    """The prompted network's cross-entropy on a batch as a function of its kernels, logits over `temperature`."""
    images, labels = batch
    logits, _ = forward(
        network,
        weights=sparsity.overlay(source.weights, kernels),
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
    kernels: PyTree,
    batch: Batch,
    rng: jax.Array,
) -> PyTree:
    gradient = jax.grad(loss, argnums=4)(network, train, temperature, source, kernels, batch, rng)
    return jax.tree.map(jnp.add, total, gradient)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _add_hessian_vector(
    network: Network,
    train: bool,
    temperature: float,
    total: PyTree,
    source: Subnetwork,
    kernels: PyTree,
    vector: PyTree,
    batch: Batch,
    rng: jax.Array,
) -> PyTree:
    def gradient(kernels: PyTree) -> PyTree:
        return jax.grad(loss, argnums=4)(network, train, temperature, source, kernels, batch, rng)

    _, product = jax.jvp(gradient, (kernels,), (vector,))
    return jax.tree.map(jnp.add, total, product)
