"""Random masks: the baseline that every other pruner should beat."""

import jax

from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Keeps random weights, or random groups of them, each with the same probability.

    Args:
      problem: the network, data, density and random key.
      runner: takes a note if ties decided much.

    Returns:
      The sparse network.
    """
    leaves, structure = jax.tree.flatten(problem.scored)
    keys = jax.random.split(problem.key, len(leaves))
    scores = [jax.random.uniform(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return problem.by_score(jax.tree.unflatten(structure, scores), runner)
