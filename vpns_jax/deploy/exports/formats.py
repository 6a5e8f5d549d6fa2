"""What a format of exported networks is: a name, how its file is written, and how the file is asked for its answers."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vpns_jax.deploy.classifier import Classifier
from vpns_jax.errors import UserError, check_name, short


@dataclasses.dataclass(frozen=True)
class Option:
    """A choice that a format offers.

    Attributes:
      name: of the choice, such as "dtype"; `--dtype=` on the command line.
      meaning: what it chooses, in a line.
      allowed: the values; the first is the default.
      several: whether several values can be chosen, with commas between them; the default is then all of them.
    """

    name: str
    meaning: str
    allowed: tuple[str, ...]
    several: bool = False

    def read(self, text: str | None) -> str | tuple[str, ...]:
        """What a text chooses.

        Args:
          text: as on a command line; None for the default.

        Returns:
          A value, or a tuple of values if there can be several.

        Raises:
          UserError: a value is not allowed.
        """
        if text is None:
            return self.allowed if self.several else self.allowed[0]
        values = tuple(text.split(",")) if self.several else (text,)
        for value in values:
            check_name(self.name, value, self.allowed)
        return values if self.several else text


@dataclasses.dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
      name: of the format.
      meaning: what it is for, in a line.
      suffix: what the names of its files end with; "" for a folder.
      write: writes a network to a path that does not exist yet, with a value for each of `options` by name. It returns
        the network that the file holds: the given one, or one that differs from it, such as in rounded weights. It
        raises `UserError`, before it writes, for what the format cannot hold.
      answers: reads what was written, and runs it: from the path, the network and uint8 [b, image_size, image_size, 3]
        to logits, float [b, t]. It runs the file itself in its own runtime where there is one.
      options: what can be chosen.
    """

    name: str
    meaning: str
    suffix: str
    write: Callable[..., Classifier]
    answers: Callable[[Path, Classifier, np.ndarray], np.ndarray]
    options: tuple[Option, ...] = ()

    def read_options(self, given: Mapping[str, str]) -> dict[str, Any]:
        """A value for each option.

        Args:
          given: texts by option; those that are not given have their defaults.

        Raises:
          UserError: an option is not of this format, or its value is not allowed.
        """
        names = tuple(option.name for option in self.options)
        for name in given:
            if name not in names:
                raise UserError(f"format {self.name} has no option {short(name)}; it has {', '.join(names) or 'none'}")
        return {option.name: option.read(given.get(option.name)) for option in self.options}
