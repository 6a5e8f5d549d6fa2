"""Pruners: each maps a `Problem` to a sparse network. Whatever follows is shared by all of them."""

import dataclasses

from vpns_jax.errors import UserError
from vpns_jax.pruners import bilevel, by_gradient, imp, learned, one_shot, synflow, transfer
from vpns_jax.pruners.problem import Problem, Pruner, Settings

PROMPT, POSTHOC = "+prompt", "+posthoc"


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the results: a pruner, and what of the configured prompt goes with it.

    Attributes:
      prune: the pruner.
      trains: how it trains in stage prune, before the retraining that all methods share: "" where it does not,
        "learn" for `Problem.learn`, "levels" where that is on two levels, "rounds" for `Problem.rounds`.
      sparse: false for one that keeps every weight, so that densities make no difference.
      prompted: the prompt is learned where the pruner trains, and in retraining (`config.prompt.stage` says which).
      posthoc: the prompt is fitted alone, on the finished network.
      in_rounds: it gets to a density by way of larger ones.
      given: the mask is `config.transfer.mask`.
    """

    prune: Pruner
    trains: str = ""
    sparse: bool = True
    prompted: bool = False
    posthoc: bool = False
    in_rounds: bool = False
    given: bool = False


METHODS = {
    "dense": Method(one_shot.dense, sparse=False),
    "random": Method(one_shot.random),
    "magnitude": Method(one_shot.magnitude),
    "snip": Method(by_gradient.snip),
    "grasp": Method(by_gradient.grasp),
    "synflow": Method(synflow.prune, in_rounds=True),
    "imp": Method(imp.prune, trains="rounds", in_rounds=True),
    "hydra": Method(learned.prune, trains="learn"),
    "hydra_layerwise": Method(learned.prune_layerwise, trains="learn"),
    "bip": Method(bilevel.prune, trains="levels"),
    "transfer": Method(transfer.prune, given=True),
    # The paper's: hydra+prompt by its own name.
    "vpns": Method(learned.prune, trains="learn", prompted=True),
}


def method(name: str) -> Method:
    """The method of that name: one of `METHODS`, or one without a prompt and "+prompt" or "+posthoc".

    Raises:
      UserError: there is no such method.
    """
    if name in METHODS:
        return METHODS[name]
    base, suffix = name.rsplit("+", 1)[0], name[name.rfind("+") :]
    if suffix in (PROMPT, POSTHOC) and base in METHODS and not METHODS[base].prompted:
        return dataclasses.replace(METHODS[base], prompted=suffix == PROMPT, posthoc=suffix == POSTHOC)
    raise UserError(
        f"unknown method {name!r}; known: {', '.join(METHODS)}, and all but vpns with {PROMPT} or {POSTHOC} after them"
    )


__all__ = ["METHODS", "Method", "Problem", "Pruner", "Settings", "method"]
