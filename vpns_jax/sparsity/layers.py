"""The layers that structured pruning sees: coupled kernels count as one layer, and some kernels cannot be pruned."""

import fnmatch
import functools
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vpns_jax import trees
from vpns_jax.errors import LONGEST, UserError, several
from vpns_jax.sparsity import granularity
from vpns_jax.sparsity.granularity import Granularity, Groups

PyTree = Any
# (paths, width, fixed): kernels whose output channels are pruned together, `width` consecutive channels as one. Where
# `fixed` is not empty, they are not pruned, and it says why.
Coupled = tuple[tuple[str, ...], int, str]


class Layer(NamedTuple):
    """Kernels that share their groups: one kernel, or several whose channels are coupled.

    Attributes:
      leaves: the kernels' positions among the tree's leaves.
      kernels: how each kernel is divided into groups; all have the same number of groups.
    """

    leaves: tuple[int, ...]
    kernels: tuple[Groups, ...]

    @property
    def groups(self) -> int:
        """The number of groups."""
        return self.kernels[0].number

    @property
    def size(self) -> int:
        """The number of weights in a group, over all its kernels."""
        return sum(kernel.size for kernel in self.kernels)

    def mean(self, leaves: Sequence[jax.Array], *, signed: bool = False) -> jax.Array:
        """Averages |x| over each group, in all its kernels. For groups of single weights, x itself is returned.

        Args:
          leaves: all leaves x of a tree like the layer's.
          signed: whether x is averaged instead of |x|.

        Returns:
          One number for each group.
        """
        if not self.kernels[0].within:
            return leaves[self.leaves[0]]
        totals = [
            kernel.total(leaves[i] if signed else jnp.abs(leaves[i]))
            for i, kernel in zip(self.leaves, self.kernels, strict=True)
        ]
        return sum(totals[1:], totals[0]) / self.size


def layers(grain: Granularity, shapes: PyTree, coupled: Sequence[Coupled] = ()) -> tuple[Layer, ...]:
    """The layers of a tree, in the order of its leaves; coupled kernels stand at the place of the first one.

    Args:
      grain: which weights make a group.
      shapes: tree of arrays or `jax.ShapeDtypeStruct`s.
      coupled: which kernels share their output channels; used by granularity "channel" alone.

    Returns:
      The layers.

    Raises:
      UserError: the granularity does not suit a kernel, its output channels are fixed, or it is coupled to a kernel
        that the tree lacks. The line names such kernels, the first four or globs of them, so that the caller can
        exclude them.
      ValueError: coupled kernels differ in their number of output channels.
    """
    named = tuple((path, tuple(leaf.shape)) for path, leaf in trees.named_leaves(shapes).items())
    return _layers(grain, named, tuple(coupled))


# A schedule asks for the same layers at each of its densities; there may be a thousand.
@functools.lru_cache(maxsize=32)
def _layers(
    grain: Granularity, shapes: tuple[tuple[str, tuple[int, ...]], ...], coupled: tuple[Coupled, ...]
) -> tuple[Layer, ...]:
    named = dict(shapes)
    position = {path: i for i, path in enumerate(named)}
    sharing = {} if grain.kind != "channel" else {path: entry for entry in coupled for path in entry[0]}

    accepted, refused = [], {}
    for path, shape in named.items():
        others, width, fixed = sharing.get(path, ((path,), 1, ""))
        missing = [other for other in others if other not in named]
        if grain.kind != "weight" and trees.is_outputs_first(path):
            refused[path] = "an array called `weight` is [out, in, ...], and only single weights of such can be pruned"
        elif reason := fixed or granularity.refusal(grain, shape, width):
            refused[path] = reason
        elif missing:
            refused[path] = f"it shares its output channels with {_few(missing)}, which will not be pruned"
        elif position[path] == min(position[other] for other in others):
            kernels = tuple(granularity.groups(grain, named[other], width) for other in others)
            if len({kernel.number for kernel in kernels}) > 1:
                raise ValueError(f"coupled kernels differ in output channels: {', '.join(others)}")
            accepted.append(Layer(tuple(position[other] for other in others), kernels))
    if refused:
        path, reason = next(iter(refused.items()))
        raise UserError(
            f"granularity {grain} cannot prune {path} {list(named[path])}: {reason};"
            f" exclude, to leave dense: {_few(_globs(refused, named))}"
        )
    return tuple(accepted)


def _globs(chosen: Collection[str], paths: Collection[str]) -> list[str]:
    """The chosen paths; those that differ only in a block's number become one glob, "block_*/mlp/fc2/kernel"."""
    globs = {path: re.sub(r"_\d+/", "_*/", path) for path in chosen}
    for path, glob in globs.items():
        if any(fnmatch.fnmatchcase(other, glob) and other not in chosen for other in paths):
            globs[path] = path
    return list(dict.fromkeys(globs.values()))


def _few(paths: Sequence[str]) -> str:
    """The first paths, whole, because users copy them."""
    return several(paths, limit=4, width=LONGEST)
