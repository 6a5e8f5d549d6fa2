"""Command lines without a config: a parser that says what is wrong in one line, as everything else does."""

import argparse
from typing import NoReturn

from vpns_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser`, made with `usage=`, which ends the line about a mistake."""

    def error(self, message: str) -> NoReturn:
        """Refuses a command line; `argparse` itself would end the program.

        Args:
          message: what is wrong with it.

        Raises:
          UserError: always.
        """
        raise UserError(f"{message}; usage: {self.usage}")
