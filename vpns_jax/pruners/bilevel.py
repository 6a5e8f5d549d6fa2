"""BiP: mask and weights as the two levels of one problem (Zhang et al., NeurIPS 2022, arXiv 2210.04092).

    min over m of l(m * w*(m)),   w*(m) = argmin over w of l(m * w) + gamma/2 |w|^2

A step of the weights alternates with one of the mask, whose gradient knows how the weights answer to it:
`sparsity.bilevel_gradient`. Both are in `training.steps.bilevel_step`.
"""

from vpns_jax.pruners.problem import Problem
from vpns_jax.training import steps
from vpns_jax.training.state import Subnetwork


def prune(problem: Problem) -> Subnetwork:
    """Learns scores, from the scaled weights on, and weights, from the pretrained ones; keeps both."""
    scores = problem.first_scores()
    start = problem.by_score(scores)
    state, fixed = problem.learn({"scores": scores, "weights": start.weights}, start, problem.pattern)
    return steps.subnetwork(state, fixed)
