"""HYDRA and VPNs: scores are learned on the frozen network, without (HYDRA) or with (VPNs) a visual prompt.

VPNs: arXiv 2312.01397, eq. 2. HYDRA: Sehwag et al., arXiv 2002.10509. HYDRA's own form has one threshold for each
layer; with one global threshold it is VPNs without the prompt.
"""

import dataclasses

from vpns_jax.pruners.first_mapping import NewHead
from vpns_jax.pruners.method import Training
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner
from vpns_jax.training.stage import learn_scores

TRAINING = Training()


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Learns scores, which start at the scaled weights, together with the prompt if there is one.

    Args:
      problem: the network, data and density.
      runner: trains, and counts passes.

    Returns:
      The sparse network.

    Raises:
      UserError: the initial scores are all equal, or not finite; or see `Runner.run`.
    """
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
    return problem.learned(state.groups["scores"], stage.subnetwork(state), runner)


def prune_layerwise(problem: Problem, runner: Runner) -> Subnetwork:
    """Learns scores with the same density in every layer: of its n weights or groups int((1 - density) n) are pruned.

    Args:
      problem: the network, data and density.
      runner: trains, and counts passes.

    Returns:
      The sparse network.

    Raises:
      UserError: see `prune`.
    """
    uniform = dataclasses.replace(problem.pattern, allocation="uniform")
    return prune(dataclasses.replace(problem, pattern=uniform), runner)
