"""What of a network may be pruned, and in what pieces: as the config says."""

from typing import Any

from vpns_jax import models, sparsity
from vpns_jax.config import Config
from vpns_jax.pruners import method

PyTree = Any


def prunable(config: Config, weights: PyTree) -> PyTree:
    """The kernels that may be pruned: as the config says, and never a head that is learned anew."""
    new_head = (models.HEAD,) if config.mapping.kind == "head" else ()
    exclude = (*config.model.prune_exclude, *new_head)
    return models.prunable(weights, include=config.model.prune_include, exclude=exclude)


def pattern(config: Config) -> sparsity.Pattern:
    """What masks may look like: which weights stand or fall together, and how layers share the density."""
    grain = sparsity.parse_granularity(config.granularity)
    if grain.kind != "channel":
        return sparsity.Pattern(grain, config.allocation)
    model = models.create(config.model.name, **config.model.options)
    return sparsity.Pattern(grain, config.allocation, models.coupled(model))


def check(config: Config, weights: PyTree) -> None:
    """Raises `UserError` if the config's masks cannot be had of these weights, or their shapes, at its densities."""
    found, wanted = prunable(config, weights), pattern(config)
    if any(method(name).sparse for name in config.methods):
        for density in config.densities:
            sparsity.validate(wanted, found, density)
