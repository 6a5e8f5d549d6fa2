"""A run's configuration: parsed once, checked as a whole, immutable afterwards.

A key that is missing or unknown, or whose type or value is not allowed, ends the run before anything else happens.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vpns_jax import options
from vpns_jax.experiment import target
from vpns_jax.experiment.schema import Config

__all__ = ["Config", "former_keys", "parse"]


def parse(tree: Mapping[str, Any]) -> Config:
    """Builds and checks a configuration.

    Args:
      tree: nested dicts with all keys, such as a config file's `to_dict()` or a run's config.json.

    Returns:
      The configuration.

    Raises:
      UserError: one line that names the key, what was found and what is allowed.
    """
    config = options.build(Config, tree, "config")
    options.check(config, "config")
    share = target.parse(config.target)
    return dataclasses.replace(config, densities=(share.share,)) if share else config


def former_keys() -> dict[str, str]:
    """Lists keys that had another name in the previous release.

    Returns:
      The key's name now, by its former name, such as "prompt.parametrisation".
    """
    return options.former_names(Config)
