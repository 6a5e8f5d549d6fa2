"""Pruners: each maps a `Problem` to a sparse network. Whatever follows is shared by all of them."""

import dataclasses

from vpns_jax.pruners import learned, one_shot
from vpns_jax.pruners.problem import Problem, Pruner
from vpns_jax.sparsity import scores


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the results: a pruner, and whether the configured prompt goes with it.

    `trains` is true where the pruner itself trains (stage prune) before the retraining that all methods share.
    """

    prune: Pruner
    prompted: bool
    trains: bool


METHODS = {
    "dense": Method(one_shot.dense, prompted=False, trains=False),
    "dense+prompt": Method(one_shot.dense, prompted=True, trains=False),
    "vpns": Method(learned.prune, prompted=True, trains=True),
    "hydra": Method(learned.prune, prompted=False, trains=True),
    "magnitude": Method(one_shot.by_score(scores.magnitude), prompted=False, trains=False),
    "magnitude+prompt": Method(one_shot.by_score(scores.magnitude), prompted=True, trains=False),
}

__all__ = ["METHODS", "Method", "Problem", "Pruner"]
