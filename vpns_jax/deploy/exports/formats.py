"""A format of exported networks: its name, how its file is written, and how the file is run to check it."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vpns_jax.deploy.classifier import Classifier
from vpns_jax.errors import UserError, check_name, short


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a format.

    Attributes:
      name: the option's name, such as "dtype"; on the command line `--dtype=`.
      meaning: one line of explanation.
      allowed: the allowed values; the first is the default.
      several: whether several values can be given, separated by commas; the default is then all of them.
    """

    name: str
    meaning: str
    allowed: tuple[str, ...]
    several: bool = False

    def read(self, text: str | None) -> str | tuple[str, ...]:
        """Parses the option's value.

        Args:
          text: the text from the command line; None for the default.

        Returns:
          A value, or a tuple of values if `several` is True.

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
      name: the format's name.
      meaning: one line of explanation.
      suffix: the end of its files' names; "" for a folder.
      write: a function of (network, path, value of each option by name) that writes a path that does not exist yet. It
        returns the network that the file holds, which may differ from the given one, such as by rounded weights. It
        raises `UserError`, before it writes, for a network that the format cannot hold.
      answers: a function of (path, network that `write` returned, uint8 [b, image_size, image_size, 3]) that reads the
        file, runs it in its own runtime if there is one, and returns logits, float [b, t].
      options: the format's options.
    """

    name: str
    meaning: str
    suffix: str
    write: Callable[..., Classifier]
    answers: Callable[[Path, Classifier, np.ndarray], np.ndarray]
    options: tuple[Option, ...] = ()

    def read_options(self, given: Mapping[str, str]) -> dict[str, Any]:
        """Parses the values of all options.

        Args:
          given: texts by option; options that are not given have their defaults.

        Returns:
          The value of each option by name.

        Raises:
          UserError: this format has no such option, or a value is not allowed.
        """
        names = tuple(option.name for option in self.options)
        for name in given:
            if name not in names:
                raise UserError(f"format {self.name} has no option {short(name)}; it has {', '.join(names) or 'none'}")
        return {option.name: option.read(given.get(option.name)) for option in self.options}
