"""Masks that take neither data nor training: a score for each weight, one global threshold."""

import jax

from vpns_jax import sparsity
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.state import Subnetwork


def dense(problem: Problem) -> Subnetwork:
    """Keeps every weight: the network that the others are measured against."""
    return problem.dense()


def random(problem: Problem) -> Subnetwork:
    """Keeps weights by lot, each as likely as any other: the least that a pruner must beat."""
    leaves, structure = jax.tree.flatten(problem.kernels)
    keys = jax.random.split(problem.key, len(leaves))
    scores = [jax.random.uniform(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return problem.by_score(jax.tree.unflatten(structure, scores))


def magnitude(problem: Problem) -> Subnetwork:
    """OMP: keeps the largest weights (Han et al., arXiv 1506.02626)."""
    return problem.by_score(sparsity.magnitude(problem.kernels))
