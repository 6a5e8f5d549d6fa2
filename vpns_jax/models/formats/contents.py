"""What a weight file holds."""

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a weight file holds.

    Attributes:
      tensors: arrays by name, as they are stored; perhaps read-only.
      others: what stands beside them and is no tensor: its type by its name.
      notes: what was chosen or passed over in reading, for the user.
      key_used: whether the `weights_key` asked for is where the tensors were.
    """

    tensors: dict[str, np.ndarray]
    others: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    key_used: bool = False
