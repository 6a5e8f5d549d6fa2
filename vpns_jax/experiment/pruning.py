"""What of a network may be pruned, and in what pieces: as the config says."""

from typing import Any

from vpns_jax import models, sparsity
from vpns_jax.errors import UserError
from vpns_jax.experiment.config import Config
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


def check(config: Config, variables: PyTree) -> None:
    """Raises `UserError` if the config's masks cannot be had of a network's variables, or their shapes."""
    found, wanted = prunable(config, variables["params"]), pattern(config)
    if any(method(name).sparse for name in config.methods):
        for density in config.densities:
            sparsity.validate(wanted, found, density)
    if wanted.granularity.kind == "channel" and "batch_stats" in variables:
        for name in config.methods:
            training = method(name).training
            # The loss is the same for any multiple of a channel's weights w, so the gradient in its mask, w g, is zero.
            if training and training.learns_scores:
                raise UserError(
                    f"config.granularity is channel, which {name} cannot learn: batch normalisation hides from the "
                    "loss how large an output channel is; use input_channel, or another method"
                )
