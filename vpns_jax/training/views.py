"""Views: small static values that turn groups into weights and a mask, and so say where the mask comes from.

A view is called inside the loss, so it decides the gradient of the groups.
"""

import dataclasses
from typing import Any, Protocol

import jax

from vpns_jax import sparsity, trees
from vpns_jax.parallel import sharding
from vpns_jax.training.state import Groups, weights_of

PyTree = Any


class View(Protocol):
    """Makes the weights and the mask of a pass from its groups. Hashable."""

    def keep(self, groups: Groups) -> PyTree:
        """Makes the mask.

        Args:
          groups: the state's groups.

        Returns:
          A tree of bool arrays.
        """
        ...

    def __call__(self, groups: Groups) -> tuple[PyTree, PyTree]:
        """Makes the weights, and the mask to apply to them.

        Args:
          groups: the state's groups.

        Returns:
          The weights and the mask. The mask is bool, or floats with a gradient, or {} if it is already applied.
        """
        ...


@dataclasses.dataclass(frozen=True)
class FixedMask:
    """A fixed mask, stored as bits: "packed_mask" in the groups."""

    def keep(self, groups: Groups) -> PyTree:
        """Unpacks the mask, distributed over the devices like its weights; see `View.keep`."""
        return _unpacked(groups["packed_mask"])

    def __call__(self, groups: Groups) -> tuple[PyTree, PyTree]:
        """Gives the weights a gradient and the mask none (VPNs, eq. 3); see `View`."""
        return weights_of(groups), self.keep(groups)


@dataclasses.dataclass(frozen=True)
class LearnedMask:
    """A mask that is learned by scores, with the straight-through gradient (VPNs, eq. 2).

    Attributes:
      pattern: what is kept or pruned: single weights under one threshold, groups of weights, or channels.
    """

    pattern: sparsity.Pattern

    def keep(self, groups: Groups) -> PyTree:
        """Prunes the smallest scores, as many as "pruned" in the groups says; see `View.keep`."""
        return self.pattern.mask(self.kept(groups), weights_of(groups))

    def kept(self, groups: Groups) -> PyTree:
        """Selects what the scores keep.

        Args:
          groups: of the stage.

        Returns:
          A tree of bool arrays like the scores.
        """
        return self.pattern.select(groups["scores"], groups["pruned"])

    def __call__(self, groups: Groups) -> tuple[PyTree, PyTree]:
        """Passes the mask's gradient straight through to |scores|; see `View`."""
        weights = weights_of(groups)
        straight = sparsity.attach_gradient(groups["scores"], self.kept(groups))
        return weights, self.pattern.gate(straight, weights)


@dataclasses.dataclass(frozen=True)
class BilevelMask(LearnedMask):
    """A learned mask whose gradient takes into account that the best weights depend on it (BiP, arXiv 2210.04092).

    Attributes:
      gamma: the factor of the lower level's L2 penalty, above zero.
    """

    gamma: float

    def __call__(self, groups: Groups) -> tuple[PyTree, PyTree]:
        """Applies the mask; the gradient of the scores is `sparsity.bilevel_gradient`. See `View`."""
        weights = weights_of(groups)
        scores, keep = (self.pattern.gate(each, weights) for each in (groups["scores"], self.kept(groups)))
        masked = trees.subtree(weights, keep)
        return trees.overlay(weights, sparsity.bilevel(scores, masked, keep, self.gamma)), {}


@jax.jit
def _unpacked(bits: PyTree) -> PyTree:
    return sharding.split_parameters(sparsity.unpack(bits))
