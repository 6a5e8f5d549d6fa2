"""Pruners, one file each: from a `Problem` to a sparse network. All methods share the stages that follow."""

import dataclasses

from vpns_jax.errors import UserError
from vpns_jax.pruners import bip, dense, given_mask, grasp, hydra, imp, magnitude, random, scoring, snip, synflow
from vpns_jax.pruners.method import Method, Pruner, Training
from vpns_jax.pruners.problem import Problem

PROMPT, POSTHOC = "+prompt", "+posthoc"

METHODS = {
    "dense": Method(dense.prune, sparse=False),
    "random": Method(random.prune),
    "magnitude": Method(magnitude.prune),
    "snip": Method(snip.prune, options=scoring.Options),
    "grasp": Method(grasp.prune, options=scoring.Options),
    "synflow": Method(synflow.prune, options=synflow.Options, gradual=True),
    "imp": Method(imp.prune, options=imp.Options, training=imp.TRAINING, gradual=True),
    "hydra": Method(hydra.prune, training=hydra.TRAINING),
    "hydra_layerwise": Method(hydra.prune_layerwise, training=hydra.TRAINING, layerwise=True),
    "bip": Method(bip.prune, options=bip.Options, training=bip.TRAINING),
    "transfer": Method(given_mask.prune, options=given_mask.Options, given=True),
    # The paper's method: the same as hydra+prompt.
    "vpns": Method(hydra.prune, training=hydra.TRAINING, prompted=True),
}
# The dataclasses of pruners' options, by their names in the config.
OPTIONS = {row.options.group: row.options for row in METHODS.values() if row.options}


def method(name: str) -> Method:
    """Looks up a method by its name.

    Args:
      name: a key of `METHODS`; or a key without a prompt, followed by "+prompt" or "+posthoc".

    Returns:
      The method.

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


__all__ = ["METHODS", "OPTIONS", "Method", "Problem", "Pruner", "Training", "method"]
