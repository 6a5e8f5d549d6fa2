"""BiP: the mask and the weights are the two levels of one problem (Zhang et al., NeurIPS 2022, arXiv 2210.04092).

    min over m of l(m * w*(m)),   w*(m) = argmin over w of l(m * w) + gamma/2 |w|^2

A step of the weights alternates with a step of the mask. The mask's gradient takes into account how the best weights
depend on the mask: `sparsity.bilevel`. `training.stage.learn_both` has the two passes.
"""

import dataclasses
from typing import ClassVar

from vpns_jax.options import Range, option
from vpns_jax.pruners.method import Training
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.optimizers import Optimizer, sgd
from vpns_jax.training.runner import Runner
from vpns_jax.training.stage import learn_both

TRAINING = Training(levels=2)


@dataclasses.dataclass(frozen=True)
class Options:
    """BiP: scores and weights are learned in turn, for prune.epochs; the prompt with prune.prompt."""

    group: ClassVar[str] = "bip"

    gamma: float = option(
        1.0,
        "The factor of the lower level's L2 penalty: the mask's gradient contains -m g^2 / gamma.",
        Range(1e-9, 1e9, "", must="it must be above zero, from 1e-9 to 1e9: beyond, float32 sees one term alone"),
    )
    weights: Optimizer = option(sgd(0.01), "The optimizer of the weights, which are the lower level.")
    scores: Optimizer = option(sgd(0.1), "The optimizer of the scores, which are the upper level.")


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Learns scores, which start at the scaled weights, and weights, which start at the pretrained ones.

    Args:
      problem: the network, data and density.
      runner: trains, and counts passes.

    Returns:
      The sparse network, with the learned weights.
    """
    options: Options = problem.options
    optimizers = {**problem.prune.optimizers, "weights": options.weights, "scores": options.scores}
    scores = problem.first_scores()
    stage, state = learn_both(
        problem.network,
        problem.sparse(problem.keep(scores)),
        scores,
        dataclasses.replace(problem.prune, optimizers=optimizers),
        problem.iterations,
        pruned=problem.pruned(problem.density),
        pattern=problem.pattern,
        gamma=options.gamma,
    )
    state = runner.run("prune", stage, state, problem.prune.epochs)
    return problem.learned(state.groups["scores"], stage.subnetwork(state), runner)
