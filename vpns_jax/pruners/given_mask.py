"""A mask that an earlier run found, on this data set or another: the paper's study of transfer, section 4."""

import dataclasses
from typing import Any, ClassVar

import jax

from vpns_jax import files, sparsity
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
    """Keeps of the pretrained weights what that mask keeps, whatever became of them there."""
    del runner
    return problem.sparse(problem.given)


def check(mask: PyTree, kernels: PyTree, density: float, *, name: str) -> None:
    """Raises `UserError` if `mask`, which is called `name`, is not one of these kernels (or shapes) at that density."""
    theirs, ours = (_shapes(tree) for tree in (mask, kernels))
    wrong = sorted(key for key in theirs | ours if theirs.get(key) != ours.get(key))
    if wrong:
        key = wrong[0]
        raise UserError(
            f"config.transfer.mask: {name} is not of the kernels that this config prunes: {key} is "
            f"{theirs.get(key, 'not masked')} there and {ours.get(key, 'not pruned')} here"
        )
    kept, total = sum(int(leaf.sum()) for leaf in jax.tree.leaves(mask)), sparsity.selection.count(kernels)
    wanted = total - sparsity.pruned_count(kernels, density)
    if kept != wanted:
        raise UserError(
            f"config.transfer.mask: {name} keeps {kept:,} of {total:,} weights; config.densities holds {density:.6g}, "
            f"which keeps {wanted:,}"
        )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(keys, simple=True, separator="/"): leaf.shape for keys, leaf in leaves}
