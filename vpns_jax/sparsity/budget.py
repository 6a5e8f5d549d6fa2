"""Budgets: channels are pruned until the remaining network costs at most a given share of the dense network's cost.

A layer's cost is proportional to the channels that it reads times the channels that it writes. So the share of the cost
differs from the share of channels. One threshold for the scores of all layers is used, as for densities. Every new mask
searches its threshold: all thresholds are tried at once, which is cheap because there are few channels, and the one
that keeps the most channels is taken.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vpns_jax import trees
from vpns_jax.errors import UserError
from vpns_jax.sparsity import selection
from vpns_jax.sparsity.channels import ChannelPattern
from vpns_jax.sparsity.choosing import check_some
from vpns_jax.sparsity.density import check_density

PyTree = Any
# Larger than float32's rounding error in the sum over a network, so that rounding never exceeds a budget.
_ROUNDING = 1e-6


class Term(NamedTuple):
    """The cost of one part of a network, proportional to the kept channels that it reads and to those that it writes.

    Attributes:
      reads: the path of the scores of the channels that it reads; "" if none of them may be pruned.
      writes: the path of the scores of the channels that it writes; "" if none of them may be pruned.
      cost: its cost in the dense network, such as its multiply-adds.
    """

    reads: str
    writes: str
    cost: int


def cost(terms: Sequence[Term], kept: Mapping[str, tuple[int, int]]) -> int:
    """Adds up the cost of a pruned network.

    Args:
      terms: the parts of the dense network.
      kept: how many channels are kept and how many there are, by the path of their scores.

    Returns:
      The cost without the pruned channels.
    """
    whole = (1, 1)
    total = 0
    for term in terms:
        (in_kept, in_all), (out_kept, out_all) = kept.get(term.reads, whole), kept.get(term.writes, whole)
        total += term.cost * in_kept * out_kept // (in_all * out_all)
    return total


@dataclasses.dataclass(frozen=True)
class BudgetPattern(ChannelPattern):
    """Masks of whole channels under one threshold; the density is a share of the cost. Hashable.

    Attributes:
      terms: the parts of the dense network.
      target: the user's name for the cost, for errors.
    """

    terms: tuple[Term, ...] = ()
    target: str = ""

    def amount(self, shapes: PyTree, density: float) -> PyTree:
        """Checks the share of the cost that is kept; see `Pattern.amount`.

        Args:
          shapes: tree of kernels, or of their shapes.
          density: share of the cost that is kept.

        Returns:
          The share.

        Raises:
          UserError: nothing may be pruned, the share is outside (0, 1], the allocation is not global, the terms cost
            nothing, or one channel in each layer costs more than the share; or see `layers`.
          ValueError: see `layers`.
        """
        check_some(shapes)
        check_density(density)
        if self.allocation != "global":
            raise UserError(f"target {self.target} needs one threshold, allocation global; found {self.allocation}")
        all_layers = dict(zip(self._names(shapes), self.layers(shapes), strict=True))
        dense = cost(self.terms, {})
        if dense <= 0:
            raise UserError(
                f"target {self.target}: the terms cost nothing; give the parts of the network and their costs"
            )
        least = cost(self.terms, {name: (1, layer.groups) for name, layer in all_layers.items()}) / dense
        if least > density:
            raise UserError(
                f"target {self.target}:{density:g} cannot be reached: with one channel left in each of the "
                f"{len(all_layers)} layers that may be pruned, {least:.3g} of the dense network are left"
            )
        return np.float32(density)

    def select(self, scores: PyTree, amount: Any, *, signed: bool = False) -> PyTree:
        """Keeps the channels with the largest scores, as many as the budget allows; see `Pattern.select`.

        Args:
          scores: a tree like `scored`.
          amount: share of the cost that is kept, from `amount`.
          signed: whether the largest scores are kept instead of the largest magnitudes.

        Returns:
          A tree like `scores`, bool.
        """
        return _select(self, scores, jnp.float32(amount), signed=signed)

    def _names(self, shapes: PyTree) -> list[str]:
        return list(trees.flatten(self.scored(shapes)))


@functools.partial(jax.jit, static_argnames=("pattern", "signed"))
def _select(pattern: BudgetPattern, scores: PyTree, share: jax.Array, *, signed: bool) -> PyTree:
    leaves, structure = jax.tree.flatten(lax.stop_gradient(scores))
    names = list(trees.named_leaves(scores))
    rank_of = selection.order_rank if signed else selection.magnitude_rank
    # Of equal scores, the first is pruned first, and one that is NaN before all others, as everywhere.
    order = jnp.argsort(jnp.concatenate([rank_of(leaf) for leaf in leaves]), stable=True)
    owner = np.repeat(np.arange(len(leaves)), [leaf.size for leaf in leaves])
    left = _left(pattern.terms, names, [leaf.size for leaf in leaves], jnp.asarray(owner)[order])
    # The whole cost is exact: nothing has to go.
    pruned = jnp.where(share >= 1, 0, jnp.argmax(left <= share * (1 - _ROUNDING)))
    rank = jnp.zeros(order.size, jnp.int32).at[order].set(jnp.arange(order.size, dtype=jnp.int32))
    kept = jnp.split(rank >= pruned, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return jax.tree.unflatten(structure, kept)


def _left(terms: Sequence[Term], names: Sequence[str], sizes: Sequence[int], owners: jax.Array) -> jax.Array:
    """The share of the cost that is left after the first 0, 1, 2, ... channels are pruned, float32 `[channels + 1]`.

    Args:
      terms: the parts of the dense network.
      names: the layers' names.
      sizes: the number of channels of each layer.
      owners: the layer of each channel, in the order of pruning.
    """
    gone = jnp.cumsum(owners[:, None] == jnp.arange(len(names))[None], axis=0, dtype=jnp.int32)
    gone = jnp.concatenate([jnp.zeros((1, len(names)), jnp.int32), gone])
    shares = {name: 1 - gone[:, i] / size for i, (name, size) in enumerate(zip(names, sizes, strict=True))}
    whole = jnp.ones(len(owners) + 1)
    dense = cost(terms, {})
    parts = [term.cost / dense * shares.get(term.reads, whole) * shares.get(term.writes, whole) for term in terms]
    return sum(parts[1:], parts[0])
