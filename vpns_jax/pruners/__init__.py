"""Pruners: functions for any model, such as `snip`, and the methods of experiments that call them.

A file of `methods` holds both for one pruner. So `pruners.snip` is the function and `pruners.methods.snip` the file.
All methods share the stages that follow.
"""

import dataclasses

from vpns_jax.errors import UserError
from vpns_jax.pruners import methods
from vpns_jax.pruners.method import Method, Pruner, Training
from vpns_jax.pruners.methods import bip, dense, given_mask, hydra, imp, scoring
from vpns_jax.pruners.methods.fisher import fisher
from vpns_jax.pruners.methods.grasp import grasp
from vpns_jax.pruners.methods.magnitude import magnitude
from vpns_jax.pruners.methods.random import random
from vpns_jax.pruners.methods.snip import snip
from vpns_jax.pruners.methods.synflow import synflow
from vpns_jax.pruners.problem import Problem

PROMPT, POSTHOC = "+prompt", "+posthoc"

METHODS = {
    "dense": Method(dense.prune, sparse=False),
    "random": Method(methods.random.prune),
    "magnitude": Method(methods.magnitude.prune),
    "snip": Method(methods.snip.prune, options=scoring.Options),
    "fisher": Method(methods.fisher.prune, options=scoring.Options),
    "grasp": Method(methods.grasp.prune, options=scoring.Options),
    "synflow": Method(methods.synflow.prune, options=methods.synflow.Options, gradual=True),
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


__all__ = [
    "METHODS",
    "OPTIONS",
    "Method",
    "Problem",
    "Pruner",
    "Training",
    "fisher",
    "grasp",
    "magnitude",
    "method",
    "random",
    "snip",
    "synflow",
]
