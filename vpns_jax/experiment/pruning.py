"""Which kernels of a network may be pruned, and in which groups, as the config says."""

from typing import Any

import flax.linen as nn

from vpns_jax import models, sparsity, trees
from vpns_jax.errors import UserError
from vpns_jax.experiment import target
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
      UserError: a glob of the config matches nothing; or, with granularity channel, no kernel is left whose channels
        can be pruned.
    """
    new_head = (models.HEAD,) if config.mapping.kind == "head" else ()
    exclude = (*config.model.prune_exclude, *new_head)
    kernels = models.prunable(weights, include=config.model.prune_include, exclude=exclude)
    fixed = {kernel: each.fixed for each in _channels(config) if each.fixed for kernel in each.kernels}
    kept = {path: leaf for path, leaf in trees.flatten(kernels).items() if path not in fixed}
    if not kept:
        path = next(iter(trees.flatten(kernels)))
        raise UserError(f"config.granularity channel finds nothing to prune: of {path}, {fixed[path]}")
    return trees.unflatten(kept)


def pattern(config: Config, model: nn.Module) -> sparsity.Pattern:
    """Makes the pattern of masks: which weights form a group, and how layers share the density.

    Args:
      config: a checked configuration.
      model: the network.

    Returns:
      The pattern.
    """
    channels, wanted = _channels(config), target.parse(config.target)
    if wanted:
        parts = target.terms(wanted.kind, model, image_size=config.prompt.canvas_size)
        return sparsity.BudgetPattern(channels=channels, terms=parts, target=wanted.kind)
    if channels:
        return sparsity.ChannelPattern(allocation=config.allocation, channels=channels)
    return sparsity.Pattern(sparsity.parse_granularity(config.granularity), config.allocation)


def check(config: Config, model: nn.Module, variables: PyTree) -> None:
    """Checks that the network can have masks as the config asks for.

    Args:
      config: a checked configuration.
      model: the network.
      variables: the network's variables, or their shapes.

    Raises:
      UserError: a kernel does not fit the granularity, a density leaves layers empty, or a target cannot be reached.
    """
    kernels, wanted = prunable(config, variables["params"]), pattern(config, model)
    if any(method(name).sparse for name in config.methods):
        for density in config.densities:
            wanted.amount(kernels, density)


def _channels(config: Config) -> tuple[models.Channels, ...]:
    """The network's channels, if channels are pruned."""
    if sparsity.parse_granularity(config.granularity).kind != "channel":
        return ()
    model = models.create(config.model.name, **config.model.options)
    return models.channels(model, image_size=config.prompt.canvas_size)
