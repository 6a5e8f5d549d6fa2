"""What the files of finished networks are checked for, whatever their format."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vpns_jax.errors import UserError
from vpns_jax.prompting import Prompt


def check_mapping(mapping: np.ndarray, rows: int) -> None:
    """Checks a label mapping from a file.

    Args:
      mapping: the source class of each target class.
      rows: the number of source classes.

    Raises:
      UserError: it is no vector of int32, or names another class.
    """
    if mapping.dtype != np.int32 or mapping.ndim != 1 or not np.all((mapping >= 0) & (mapping < rows)):
        raise UserError(f"the mapping does not fit the {rows} classes of the head")


def check_prompt(prompt: Prompt, parameters: Mapping[str, Any]) -> None:
    """Checks the parameters of a prompt from a file.

    Args:
      prompt: the prompt that they should be of.
      parameters: arrays by name.

    Raises:
      UserError: it has others.
    """
    wanted, held = prompt.shapes(), {name: leaf.shape for name, leaf in parameters.items()}
    if held != wanted:
        raise UserError(f"its {prompt} has parameters {wanted}, and the file holds {held}")
