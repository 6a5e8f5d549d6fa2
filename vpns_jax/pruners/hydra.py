"""HYDRA and VPNs: scores learned on the frozen network, without a visual prompt or with one.

VPNs: arXiv 2312.01397, eq. 2. HYDRA: Sehwag et al., arXiv 2002.10509, which thresholds layer by layer; with one
global threshold it is VPNs without the prompt.
"""

import dataclasses

from vpns_jax.pruners.method import Training
from vpns_jax.pruners.problem import NewHead, Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner
from vpns_jax.training.stage import learn_scores

TRAINING = Training()


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Learns scores, and the prompt if there is one, jointly; the scores start at the scaled weights."""
    scores = problem.first_scores()
    start = dataclasses.replace(problem.source, mapping=problem.map_labels(problem.keep(scores)))
    stage, state = learn_scores(
        problem.network,
        start,
        scores,
        problem.prune,
        problem.iterations,
        pruned=problem.pruned(problem.density),
        pattern=problem.pattern,
        new_head=isinstance(problem.mapping, NewHead),
    )
    state = runner.run("prune", stage, state, problem.prune.epochs)
    return stage.subnetwork(state)


def prune_layerwise(problem: Problem, runner: Runner) -> Subnetwork:
    """Learns them with every layer at the same density: of its n weights int((1 - density) n) go."""
    uniform = dataclasses.replace(problem.pattern, allocation="uniform")
    return prune(dataclasses.replace(problem, pattern=uniform), runner)
