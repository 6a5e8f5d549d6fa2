"""The contents of a weight file."""

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Contents:
    """The contents of a weight file.

    Attributes:
      tensors: arrays by name, as they are stored; they may be read-only.
      others: entries beside the tensors that are no tensors: their types by name.
      notes: which entries were chosen or skipped, for the user.
      key_used: whether the tensors are those of the entry that `weights_key` names.
    """

    tensors: dict[str, np.ndarray]
    others: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    key_used: bool = False
