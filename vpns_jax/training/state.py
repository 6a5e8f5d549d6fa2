"""What a stage of training changes, and what it keeps fixed: small immutable trees."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from vpns_jax import sparsity
from vpns_jax.parallel import sharding
from vpns_jax.training import optim

PyTree = Any


@struct.dataclass
class TrainState:
    """All that an iteration changes.

    Attributes:
      step: int32 scalar, iterations done in this stage.
      learned: groups of parameters by name: `scores` or `weights`, `prompt`, and `head` if a new one is fitted.
      opt_state: of `optim.joint`.
      batch_stats: the backbone's running statistics.
      mapping: int32 [t], source class of each target class.
    """

    step: jax.Array
    learned: dict[str, PyTree]
    opt_state: PyTree
    batch_stats: PyTree
    mapping: jax.Array


@struct.dataclass
class Fixed:
    """What a stage holds fixed: whatever of weights and mask it does not learn.

    Attributes:
      weights: `params`, the pretrained ones in stage prune and the finished ones in stage prompt; {} where learned.
      bits: the mask, packed by `sparsity.pack` ({} masks nothing); {} in stages prune and bilevel, where scores give
        it.
      pruned: how many groups to prune where scores give the mask, from `sparsity.pruned_groups`: int32.
      pattern: what these groups are; single weights under one threshold, unless the config says otherwise.
    """

    weights: PyTree
    bits: PyTree
    pruned: PyTree
    pattern: sparsity.Pattern = struct.field(pytree_node=False, default=sparsity.Pattern())

    @property
    def mask(self) -> PyTree:
        """The fixed mask as a tree of bool, laid out as what it masks."""
        return _unpacked(self.bits)

    def keep(self, scores: PyTree) -> PyTree:
        """The mask that scores give."""
        return sparsity.prune_groups(scores, self.pruned, self.pattern)


@jax.jit
def _unpacked(bits: PyTree) -> PyTree:
    return sharding.split_parameters(sparsity.unpack(bits))


@struct.dataclass
class Subnetwork:
    """All that is needed to run a sparse network: what is evaluated, reported and handed on."""

    weights: PyTree
    mask: PyTree
    batch_stats: PyTree
    prompt: PyTree
    mapping: jax.Array


@functools.partial(jax.jit, static_argnames=("rules",))
def create(
    rules: tuple[tuple[str, optim.Rule], ...], learned: dict[str, PyTree], batch_stats: PyTree, mapping: jax.Array
) -> TrainState:
    """A fresh state with fresh optimizers. It owns its arrays, so a jitted epoch may be given them for good.

    They lie where training will have them.
    """
    learned, batch_stats, mapping = jax.tree.map(jnp.copy, (learned, batch_stats, mapping))
    opt_state = optim.joint(rules).init(learned)
    state = TrainState(jnp.int32(0), learned, opt_state, batch_stats, mapping.astype(jnp.int32))
    return sharding.split_parameters(state)
