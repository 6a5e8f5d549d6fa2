"""The state of a stage: groups of arrays by name, learned and frozen."""

import dataclasses
from typing import Any

import jax
from flax import struct

from vpns_jax.models import HEAD

PyTree = Any
# Trees by name. "weights", "scores", "prompt" and "head" are parameters; "packed_mask" are a fixed mask's bits, and
# "pruned" says how many groups of weights the scores prune.
Groups = dict[str, PyTree]


@struct.dataclass
class TrainState:
    """All of a stage that is data. What a stage does not learn stands in `frozen`, under the same names.

    Attributes:
      step: int32 scalar, iterations done in this stage.
      learned: the groups that the stage's optimizer moves.
      frozen: the groups that it does not.
      opt_state: the optimizers' state, by group.
      batch_stats: the backbone's running statistics.
      mapping: int32 [t], source class of each target class.
    """

    step: jax.Array
    learned: Groups
    frozen: Groups
    opt_state: PyTree
    batch_stats: PyTree
    mapping: jax.Array

    @property
    def groups(self) -> Groups:
        """All groups, wherever they stand."""
        return {**self.frozen, **self.learned}

    def saved(self) -> "TrainState":
        """What a checkpoint holds: all but frozen weights, which whoever goes on has, too."""
        return dataclasses.replace(self, frozen={name: x for name, x in self.frozen.items() if name != "weights"})

    def restored(self, saved: "TrainState") -> "TrainState":
        """This state as a checkpoint had it; `saved` is what `saved()` gave there."""
        return dataclasses.replace(saved, frozen={**self.frozen, **saved.frozen})


def weights_of(groups: Groups) -> PyTree:
    """The model's `params`: the weights, with the new head in its place where one is learned."""
    return {**groups["weights"], HEAD: groups["head"]} if "head" in groups else groups["weights"]
