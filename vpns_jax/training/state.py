"""The state of a stage: groups of arrays by name, learned and frozen."""

import dataclasses
from typing import Any

import jax
from flax import struct

from vpns_jax.models import HEAD

PyTree = Any
# Trees by name. "weights", "scores", "prompt" and "head" are parameters; "packed_mask" holds the bits of a fixed mask;
# "pruned" is the number of groups that the scores prune.
Groups = dict[str, PyTree]


@struct.dataclass
class TrainState:
    """All arrays of a stage.

    Attributes:
      step: int32 scalar, the iterations done in this stage.
      learned: the groups that the stage's optimizers update.
      frozen: the other groups.
      opt_state: the state of the optimizers.
      batch_stats: the running statistics of the backbone.
      mapping: int32 [t], the source class of each target class.
    """

    step: jax.Array
    learned: Groups
    frozen: Groups
    opt_state: PyTree
    batch_stats: PyTree
    mapping: jax.Array

    @property
    def groups(self) -> Groups:
        """All groups, learned and frozen."""
        return {**self.frozen, **self.learned}

    def saved(self) -> "TrainState":
        """Selects the part that a checkpoint holds: everything but frozen weights, which a resumed run has anyway.

        Returns:
          The state without frozen weights.
        """
        return dataclasses.replace(self, frozen={name: x for name, x in self.frozen.items() if name != "weights"})

    def restored(self, saved: "TrainState") -> "TrainState":
        """Restores this state from a checkpoint.

        Args:
          saved: the result of `saved()` from the checkpoint.

        Returns:
          The state of the checkpoint, with the frozen weights of this one.
        """
        return dataclasses.replace(saved, frozen={**self.frozen, **saved.frozen})


def weights_of(groups: Groups) -> PyTree:
    """Selects the model's `params`, with the new head if one is learned.

    Args:
      groups: a state's groups.

    Returns:
      The parameters, a nested dict.
    """
    return {**groups["weights"], HEAD: groups["head"]} if "head" in groups else groups["weights"]
