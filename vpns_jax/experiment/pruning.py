"""Which kernels of a network may be pruned, and in which groups, as the config says."""

from typing import Any

from vpns_jax import models, sparsity
from vpns_jax.errors import UserError
from vpns_jax.experiment.config import Config
from vpns_jax.pruners import method

PyTree = Any


def prunable(config: Config, weights: PyTree) -> PyTree:
    """Selects the kernels that may be pruned. A new head is never among them.

    Args:
      config: a checked configuration.
      weights: the network's parameters, or their shapes.

    Returns:
      The subtree of `weights` that may be pruned.

    Raises:
      UserError: a glob of the config matches nothing.
    """
    new_head = (models.HEAD,) if config.mapping.kind == "head" else ()
    exclude = (*config.model.prune_exclude, *new_head)
    return models.prunable(weights, include=config.model.prune_include, exclude=exclude)


def pattern(config: Config) -> sparsity.Pattern:
    """Makes the pattern of masks: which weights form a group, and how layers share the density.

    Args:
      config: a checked configuration.

    Returns:
      The pattern.
    """
    grain = sparsity.parse_granularity(config.granularity)
    if grain.kind != "channel":
        return sparsity.Pattern(grain, config.allocation)
    model = models.create(config.model.name, **config.model.options)
    return sparsity.Pattern(grain, config.allocation, models.coupled(model))


def check(config: Config, variables: PyTree) -> None:
    """Checks that the network can have masks as the config asks for.

    Args:
      config: a checked configuration.
      variables: the network's variables, or their shapes.

    Raises:
      UserError: a kernel does not fit the granularity, or a method cannot learn it.
    """
    kernels, wanted = prunable(config, variables["params"]), pattern(config)
    if any(method(name).sparse for name in config.methods):
        for density in config.densities:
            sparsity.validate(wanted, kernels, density)
    if wanted.granularity.kind == "channel" and "batch_stats" in variables:
        for name in config.methods:
            training = method(name).training
            # The loss is the same for any multiple of a channel's weights w, so the gradient in its mask, w g, is zero.
            if training and training.learns_scores:
                raise UserError(
                    f"config.granularity is channel, which {name} cannot learn: batch normalization hides from the "
                    "loss how large an output channel is; use input_channel, or another method"
                )
