"""IMP: iterative magnitude pruning, which finds lottery tickets (Frankle and Carbin, arXiv 1803.03635).

Rewinding to an early epoch instead of the start is from Frankle et al., arXiv 1912.05671.
"""

import dataclasses
import math
from typing import Any, ClassVar

from vpns_jax import sparsity
from vpns_jax.errors import UserError
from vpns_jax.options import EPOCHS, Range, option
from vpns_jax.pruners.method import Training
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner
from vpns_jax.training.stage import Recipe, learn_weights

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Options:
    """Iterative magnitude pruning: each round trains, prunes a share of what is left, and rewinds the rest."""

    group: ClassVar[str] = "imp"

    epochs: int = option(30, "Epochs of a round, with retrain's optimizers.", EPOCHS)
    drop: float = option(
        0.2,
        "The share of the remaining weights that a round prunes.",
        Range(1e-4, 1, "", "[)", must="it must lie in [0.0001, 1); a smaller share would take thousands of rounds"),
    )
    rewind_epochs: int = option(
        0,
        "The epoch of dense training that weights are rewound to; 0 means the pretrained weights.",
        Range(0, 100_000, "no round has that many epochs"),
    )

    def check(self, path: str) -> None:
        """Checks that a round trains for longer than the epoch that it rewinds to.

        Args:
          path: the name of this group, such as "config.imp".

        Raises:
          UserError: it does not.
        """
        if not self.rewind_epochs < self.epochs:
            raise UserError(
                f"{path}.rewind_epochs is {self.rewind_epochs}; "
                f"with {path}.epochs = {self.epochs} it allows 0 ... {self.epochs - 1}"
            )

    def check_rounds(self, density: float, path: str) -> None:
        """Checks that a density can be reached within the allowed number of epochs.

        Args:
          density: the share of weights to keep.
          path: the name of this group, such as "config.imp".

        Raises:
          UserError: it takes more epochs.
        """
        needed = rounds(density, self.drop)
        if needed * self.epochs > EPOCHS.most:
            raise UserError(
                f"{path}.drop is {self.drop}: density {density:g} takes {needed:,} rounds of {self.epochs:,} epochs; "
                f"at most {EPOCHS.most:,} epochs are allowed: {EPOCHS.why}"
            )


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Runs the rounds: each rewinds the remaining weights, trains them, and prunes the smallest.

    After a round, only its mask is kept. Every round starts from the same weights.

    Args:
      problem: the network, data and density.
      runner: trains, and counts passes.

    Returns:
      The sparse network, with the weights that the rounds rewind to.

    Raises:
      UserError: see `Runner.run`.
    """
    options: Options = problem.options
    recipe = dataclasses.replace(problem.retrain, epochs=options.epochs)
    start = rewind_point(problem, runner, recipe)
    mask = start.mask
    # The rounds share one folder of checkpoints. Epochs are counted on over all rounds, from the rewind point.
    with runner.open("prune") as opened:
        for number, density in enumerate(schedule(problem.density, options.drop)):
            begin = options.rewind_epochs + number * options.epochs
            end = begin + options.epochs
            # Rewinds the weights, statistics and prompt; the mask alone stays.
            masked = dataclasses.replace(start, mask=mask)
            stage, state = learn_weights(problem.network, masked, recipe, problem.iterations)
            if opened.checkpoints.newest_number() > end:
                # An earlier run finished this round. The newest checkpoint is of a later round, whose state has its own
                # mask, so `mask` is not needed.
                runner.skip("prune", stage, options.epochs)
                continue
            state = runner.run("prune", stage, state, end, opened, start=begin)
            mask = drop_smallest(problem, stage.subnetwork(state), density, runner)
    # All is rewound but the mask; the label mapping is the one with which every round began.
    return dataclasses.replace(start, mask=mask)


def rewind_point(problem: Problem, runner: Runner, recipe: Recipe) -> Subnetwork:
    """Makes the network that the rounds rewind to: the dense one, after the first epochs of a round's training.

    Args:
      problem: the network, data and options.
      runner: trains.
      recipe: how a round is trained.

    Returns:
      The dense network.
    """
    start, epochs = problem.dense(), problem.options.rewind_epochs
    if not epochs:
        return start
    stage, state = learn_weights(problem.network, start, recipe, problem.iterations)
    with runner.open("rewind") as opened:
        state = runner.run("prune", stage, state, epochs, opened)
    return stage.subnetwork(state)


def drop_smallest(problem: Problem, trained: Subnetwork, density: float, runner: Runner) -> PyTree:
    """Prunes the smallest weights that a mask still keeps, until a density is reached.

    Args:
      problem: the network and what is prunable.
      trained: the trained weights and the mask so far.
      density: the share of all weights to keep.
      runner: takes a note if ties decided much.

    Returns:
      The new mask.
    """
    kernels = sparsity.subtree(trained.weights, problem.prunable)
    return problem.keep_fewer(problem.pattern.magnitude(kernels), trained.mask, density, runner)


def schedule(density: float, drop: float) -> tuple[float, ...]:
    """Lists the density after each round: (1 - drop)^n, and `density` at the end.

    The last round prunes a smaller share if `density` is not a power of 1 - drop.

    Args:
      density: the share of weights to keep in the end.
      drop: the share of the remaining weights that a round prunes.

    Returns:
      One density for each round.
    """
    return (*((1 - drop) ** n for n in range(1, rounds(density, drop))), density)


def rounds(density: float, drop: float) -> int:
    """Counts the rounds that reach a density: the smallest n >= 1 with (1 - drop)^n <= density.

    Args:
      density: the share of weights to keep in the end.
      drop: the share of the remaining weights that a round prunes.

    Returns:
      The number of rounds.
    """
    # The small tolerance is for rounding errors: 0.8 ** 2 is slightly more than 0.64.
    return max(1, math.ceil(math.log(density) / math.log(1 - drop) - 1e-9))


TRAINING = Training(rounds=lambda options, density: rounds(density, options.drop))
