"""Method "transfer": a mask from an earlier run, on this data set or another (section 4 of the paper)."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax import files, sparsity, trees
from vpns_jax.errors import UserError
from vpns_jax.options import option
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner

PyTree = Any


def _maybe_path(value: str, path: str) -> None:
    if value:
        files.user_path(value, path)


@dataclasses.dataclass(frozen=True)
class Options:
    """Method "transfer": the mask of an earlier run."""

    group: ClassVar[str] = "transfer"

    mask: str = option(
        "",
        "The file CELL.safetensors of an earlier run of the same network, on any data.",
        _maybe_path,
    )


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """Keeps the pretrained weights that the given mask keeps; the weights of the earlier run are not used.

    Args:
      problem: the network, data and mask.
      runner: not used.

    Returns:
      The sparse network.
    """
    del runner
    return problem.sparse(problem.given)


def check(
    mask: PyTree, kernels: PyTree, density: float, *, name: str, weights: PyTree, pattern: sparsity.Pattern
) -> None:
    """Checks that a mask fits the kernels to prune and has the right density.

    It has the density if the pattern would prune as many groups: of all, or of each layer where layers have densities
    of their own, as in the masks of `hydra_layerwise`.

    Args:
      mask: a tree of bool arrays.
      kernels: the prunable kernels, or their shapes.
      density: the share of groups that the mask must keep.
      name: the mask's file, for the error.
      weights: the network's parameters, or their shapes.
      pattern: what is kept or pruned.

    Raises:
      UserError: the mask is for other kernels, does not keep whole groups, or has another density.
    """
    everything = jax.eval_shape(
        lambda: pattern.mask(jax.tree.map(lambda x: jnp.ones(x.shape, bool), pattern.scored(kernels)), weights)
    )
    theirs, ours = ({p: leaf.shape for p, leaf in trees.named_leaves(tree).items()} for tree in (mask, everything))
    wrong = sorted(key for key in theirs | ours if theirs.get(key) != ours.get(key))
    if wrong:
        key = wrong[0]
        raise UserError(
            f"config.transfer.mask: {name} is not a mask of the kernels that this config prunes: {key} is "
            f"{theirs.get(key, 'not masked')} there and {ours.get(key, 'not pruned')} here"
        )
    # On the host, because a device would compile small programs for every shape.
    mask = jax.device_get(mask)
    found = pattern.kept(mask)
    whole = jax.tree.map(np.array_equal, jax.device_get(pattern.mask(found, weights)), mask)
    if not all(jax.tree.leaves(whole)):
        raise UserError(f"config.transfer.mask: {name} does not keep whole groups of granularity {pattern.granularity}")
    _check_count(found, kernels, density, name, pattern)


def _check_count(found: PyTree, kernels: PyTree, density: float, name: str, pattern: sparsity.Pattern) -> None:
    """Checks how many groups a mask prunes, at the pattern's allocation or at that of `hydra_layerwise`."""
    for of in (dataclasses.replace(pattern, allocation="uniform"), pattern):
        pruned = sparsity.pruned_by(found, of, f"config.transfer.mask: {name}")
        wanted = jax.tree.map(int, of.amount(kernels, density))
        if pruned == wanted:
            return
    things = "weights" if pattern.granularity.is_single else "groups"
    if pattern.granularity.kind == "channel":
        things = "channels"
    paths, groups = list(trees.named_leaves(found)), [layer.groups for layer in pattern.ranking.layers(found)]
    where, total = "", sum(groups)
    if isinstance(pruned, tuple):
        layer = next(i for i, (theirs, ours) in enumerate(zip(pruned, wanted, strict=True)) if theirs != ours)
        where, total, pruned, wanted = f" of {paths[layer]}", groups[layer], pruned[layer], wanted[layer]
    raise UserError(
        f"config.transfer.mask: {name} keeps {total - pruned:,} of {total:,} {things}{where}; config.densities holds "
        f"{density:.6g}, which keeps {total - wanted:,}"
    )
