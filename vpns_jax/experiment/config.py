"""A run's configuration: parsed once, checked whole, immutable after.

A key that is missing, unknown, of another type or of a value that is not allowed ends the run before anything else
happens.
"""

from collections.abc import Mapping
from typing import Any

from vpns_jax import options
from vpns_jax.experiment.schema import Config

__all__ = ["Config", "former_keys", "parse"]


def parse(tree: Mapping[str, Any]) -> Config:
    """Builds and checks a configuration.

    Args:
      tree: nested dicts with all keys, as a config file's `to_dict()` or a run's config.json have them.

    Raises:
      UserError: one line that names the key, what was found and what is allowed.
    """
    config = options.build(Config, tree, "config")
    options.check(config, "config")
    return config


def former_keys() -> dict[str, str]:
    """Keys by the names that they had in the release before, such as "prompt.parametrisation"."""
    return options.former_names(Config)
