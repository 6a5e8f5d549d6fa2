"""Command lines without a config: a parser that says what is wrong in one line, as everything else does."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from vpns_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` without abbreviations, made with `usage=`, which ends the line about a mistake."""

    def __init__(self, **options: Any) -> None:
        """Makes a parser.

        Args:
          **options: as for `argparse.ArgumentParser`.
        """
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Refuses a command line; `argparse` itself would end the program.

        Args:
          message: what is wrong with it.

        Raises:
          UserError: always.
        """
        raise UserError(f"{message}; usage: {self.usage}")


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Adds `--verbose`, which `is_verbose` finds: what it changes is how an error is printed, not the command.

    Args:
      parser: the parser of a command that opens a finished network.
    """
    parser.add_argument(
        "--verbose", action="store_true", help="also list all that an error is about, where it names only some"
    )


def is_verbose(arguments: Sequence[str]) -> bool:
    """Whether a command line, which may be wrong, has `--verbose`."""
    return "--verbose" in arguments


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds `--model`, by which the user names the function that makes a network of one's own.

    Args:
      parser: the parser of a command that opens a finished network.
    """
    parser.add_argument(
        "--model",
        default="",
        metavar="FUNCTION",
        help="for a network of your own: the function that makes it, my_module:make_model or file.py:make_model",
    )
