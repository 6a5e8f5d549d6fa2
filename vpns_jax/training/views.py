"""Where the mask of a pass comes from: small static values that turn groups into weights and a mask.

A view is called inside the loss: its gradient in the groups is the stage's.
"""

import dataclasses
from typing import Any, Protocol

import jax

from vpns_jax import sparsity, trees
from vpns_jax.parallel import sharding
from vpns_jax.training.state import Groups, weights_of

PyTree = Any


class View(Protocol):
    """The sparse network that a pass runs, as a function of its groups. Hashable."""

    def keep(self, groups: Groups) -> PyTree:
        """The mask: a tree of bool."""
        ...

    def __call__(self, groups: Groups) -> tuple[PyTree, PyTree]:
        """The weights, and the mask to put on them: bool, floats that carry a gradient, or {} if it is on already."""
        ...


@dataclasses.dataclass(frozen=True)
class FixedMask:
    """The mask is given, as bits: "packed_mask" in the groups."""

    def keep(self, groups: Groups) -> PyTree:
        """The mask, laid out over the devices as what it masks."""
        return _unpacked(groups["packed_mask"])

    def __call__(self, groups: Groups) -> tuple[PyTree, PyTree]:
        """The weights get a gradient, the mask none (VPNs, eq. 3)."""
        return weights_of(groups), self.keep(groups)


@dataclasses.dataclass(frozen=True)
class LearnedMask:
    """The mask is what the scores say: straight through (VPNs, eq. 2).

    Attributes:
      pattern: what is kept or pruned: single weights under one threshold, or groups of them.
    """

    pattern: sparsity.Pattern

    def keep(self, groups: Groups) -> PyTree:
        """The mask that drops the "pruned" smallest scores."""
        return sparsity.prune_groups(groups["scores"], groups["pruned"], self.pattern)

    def __call__(self, groups: Groups) -> tuple[PyTree, PyTree]:
        """The mask's gradient goes straight through to |scores|."""
        return weights_of(groups), sparsity.attach_gradient(groups["scores"], self.keep(groups))


@dataclasses.dataclass(frozen=True)
class BilevelMask(LearnedMask):
    """The mask is what the scores say, and its gradient knows how the weights answer to it (BiP, arXiv 2210.04092).

    Attributes:
      gamma: strength of the lower level's penalty, above zero.
    """

    gamma: float

    def __call__(self, groups: Groups) -> tuple[PyTree, PyTree]:
        """The weights with the mask on; the gradient in the scores is `sparsity.bilevel_gradient`'s."""
        weights, keep = weights_of(groups), self.keep(groups)
        kernels = trees.subtree(weights, keep)
        return trees.overlay(weights, sparsity.bilevel(groups["scores"], kernels, keep, self.gamma)), {}


@jax.jit
def _unpacked(bits: PyTree) -> PyTree:
    return sharding.split_parameters(sparsity.unpack(bits))
