"""IMP: iterative magnitude pruning, which finds lottery tickets.

Frankle and Carbin, arXiv 1803.03635; rewound to an early epoch instead of the start: Frankle et al., arXiv 1912.05671.
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
        Range(1e-4, 1, "", "[)", must="it must lie in [0.0001, 1), a share of what is left; less takes 10,000 rounds"),
    )
    rewind_epochs: int = option(
        0,
        "The epoch of dense training that weights are rewound to; 0 means the pretrained weights.",
        Range(0, 100_000, "no round has that many epochs"),
    )

    def check(self, path: str) -> None:
        """Raises `UserError` if rounds rewind to where they do not come by."""
        if not self.rewind_epochs < self.epochs:
            raise UserError(
                f"{path}.rewind_epochs is {self.rewind_epochs}; "
                f"with {path}.epochs = {self.epochs} it allows 0 ... {self.epochs - 1}"
            )

    def check_rounds(self, density: float, path: str) -> None:
        """Raises `UserError` if it takes more epochs to get to a density than there can be."""
        needed = rounds(density, self.drop)
        if needed * self.epochs > EPOCHS.most:
            raise UserError(
                f"{path}.drop is {self.drop}: density {density:g} takes {needed:,} rounds of {self.epochs:,} epochs; "
                f"at most {EPOCHS.most:,} epochs are allowed: {EPOCHS.why}"
            )


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Round by round: trains what is left, drops the smallest of it, and rewinds everything but the mask."""
    options: Options = problem.options
    recipe = dataclasses.replace(problem.retrain, epochs=options.epochs)
    start = warm_up(problem, runner, recipe)
    mask = start.mask
    # The rounds share one folder: the newest checkpoint holds its round's mask.
    with runner.open("prune") as files:
        for number, density in enumerate(schedule(problem.density, options.drop)):
            begin = options.rewind_epochs + number * options.epochs
            end = begin + options.epochs
            masked = dataclasses.replace(start, mask=mask)
            stage, state = learn_weights(problem.network, masked, recipe, problem.iterations)
            if files.checkpoints.newest_epoch() > end:
                # All that came of this round is the mask of a later one, whose checkpoint has it.
                runner.skip("prune", stage, options.epochs)
                continue
            state = runner.run("prune", stage, state, end, files, start=begin)
            mask = drop_smallest(problem, stage.subnetwork(state), density)
    # With the label mapping that the rounds were trained with.
    return dataclasses.replace(start, mask=mask)


def warm_up(problem: Problem, runner: Runner, recipe: Recipe) -> Subnetwork:
    """What the rounds rewind to: the dense network, after the first epochs of a round's training."""
    start, epochs = problem.dense(), problem.options.rewind_epochs
    if not epochs:
        return start
    stage, state = learn_weights(problem.network, start, recipe, problem.iterations)
    with runner.open("rewind") as files:
        state = runner.run("prune", stage, state, epochs, files)
    return stage.subnetwork(state)


def drop_smallest(problem: Problem, trained: Subnetwork, density: float) -> PyTree:
    """The mask that is left when of the weights in `trained.mask` the smallest go, until `density` of all is left."""
    return problem.keep_fewer(sparsity.subtree(trained.weights, trained.mask), trained.mask, density)


def schedule(density: float, drop: float) -> tuple[float, ...]:
    """What is left after each round: (1 - drop)^n, at the end `density`.

    The last round drops less than the others where `density` is no power of 1 - drop.
    """
    return (*((1 - drop) ** n for n in range(1, rounds(density, drop))), density)


def rounds(density: float, drop: float) -> int:
    """How many rounds reach `density`: the smallest n >= 1 with (1 - drop)^n <= density."""
    # Less a little: 0.8 to the power of 2 is a rounding error above 0.64.
    return max(1, math.ceil(math.log(density) / math.log(1 - drop) - 1e-9))


TRAINING = Training(learns_scores=False, rounds=lambda options, density: rounds(density, options.drop))
