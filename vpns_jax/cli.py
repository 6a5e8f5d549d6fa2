"""What every command shares: the flags that name a config and a folder, and how it ends."""

import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from vpns_jax import files
from vpns_jax.errors import UserError, one_line, short
from vpns_jax.files import user_path

if TYPE_CHECKING:
    from vpns_jax.experiment.config import Config

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment's config file.", lock_config=True)
_VERBOSE = flags.DEFINE_bool("verbose", False, "Also lists all that an error is about, where it names only some.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; runs/NAME of the config if not given.")
_OPTIONS = "the options are --config=FILE, --config.KEY=VALUE and --workdir=FOLDER"


def end(run: Callable[[], Any]) -> int:
    """Calls `run`. Returns the exit code: what it returns or 0; 2 for something that the caller can mend."""
    files.escape_output()
    try:
        return run() or 0
    except UserError as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        if flags.FLAGS.is_parsed() and _VERBOSE.value:
            sys.stderr.writelines(f"  {line}\n" for line in error.details)
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; run the same command to go on\n")
        return 130


def parse(argv: list[str]) -> tuple["Config", Path]:
    """The checked config that a command line names, and the folder.

    Args:
      argv: the command line, the program's name first.

    Raises:
      UserError: an unknown flag or key, a config that cannot be loaded, a value that is not allowed.
    """
    tree = _tree(argv)
    # After the flags: a typing error should not wait for the imports.
    from vpns_jax.experiment import config

    workdir = None if _WORKDIR.value is None else user_path(_WORKDIR.value, "--workdir")
    parsed = config.parse(tree)
    return parsed, workdir or Path(f"runs/{parsed.name}")


def folder(argv: list[str]) -> Path:
    """The folder that a command line names, for a command that reads what a run has written.

    Args:
      argv: the command line, the program's name first.

    Raises:
      UserError: an unknown flag, or no folder.
    """
    rest = parse_flags(argv)
    if rest or _WORKDIR.value is None:
        raise UserError(
            f"found {short(rest) if rest else 'no --workdir'}; give --workdir=FOLDER of a finished run or sweep"
        )
    return user_path(_WORKDIR.value, "--workdir")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses a command line that has no config.

    Args:
      argv: the command line, the program's name first.

    Returns:
      What is no flag.

    Raises:
      UserError: a flag that there is not, or a value that it does not take.
    """
    try:
        return flags.FLAGS(argv)[1:]
    except flags.Error as error:
        raise UserError(one_line(error)) from error


def _tree(argv: list[str]) -> dict[str, Any]:
    """The config as plain dicts."""
    # ml_collections warns of what is an error here.
    logging.getLogger("absl").setLevel(logging.ERROR)
    before = set(flags.FLAGS)
    try:
        rest = flags.FLAGS(argv)[1:]
        found = _CONFIG.value
        # What stands for a file that could not be loaded raises the reason when it is asked for anything.
        getattr(found, "to_dict", None)
    except KeyboardInterrupt:
        raise
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"{short(str(error))[1:-1]}; {_OPTIONS}") from error
    # A config file is a program and an override is parsed by it: either can raise anything, SystemExit too.
    except BaseException as error:
        unknown = _unknown_key(argv, error)
        if unknown is None:
            raise UserError(f"--config: {_reason(error)}") from error
        renamed = _renamed(argv, unknown, error)
        # Overrides are flags, which a second reading of the command line must not find.
        flags.FLAGS.unparse_flags()
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        return _tree(renamed)
    if found is None and not any(re.match(r"--?config(=|$)", argument) for argument in argv):
        raise UserError("--config is missing; name a file such as configs/quickstart.py")
    if not isinstance(found, ConfigDict):
        raise UserError(f"--config: get_config() returns {short(found)}; it must return an ml_collections.ConfigDict")
    if rest:
        raise UserError(f"unexpected arguments {short(rest)}; {_OPTIONS}")
    tree = found.to_dict()
    _check_lists(argv, tree)
    return tree


def _check_lists(argv: list[str], tree: dict[str, Any]) -> None:
    """Raises `UserError` for a dict or set where a list belongs: ml_collections takes a dict's keys for it."""
    for argument in argv:
        match = re.match(r"--?config\.([^=]+)=\s*(\{.*)", argument, re.DOTALL)
        value: Any = tree
        for part in match[1].split(".") if match else ():
            value = value.get(part) if isinstance(value, dict) else None
        if match and isinstance(value, tuple):
            raise UserError(f"config.{match[1]} is {short(match[2])[1:-1]}; it must be a tuple, such as (a, b) or a,b")


def _unknown_key(argv: list[str], error: BaseException) -> str | None:
    """The dotted key of an override that the config does not have; None if the error is another."""
    named = re.search(r"'(\w+)\\*'", str(error)) if isinstance(error, KeyError | AttributeError) else None
    for argument in argv:
        match = re.match(r"--?config\.([^=]+)", argument)
        parts = match[1].split(".") if match else []
        if named and named[1] in parts:
            return ".".join(parts[: parts.index(named[1]) + 1])
    return None


def _renamed(argv: list[str], key: str, error: BaseException) -> list[str]:
    """The command line with a key's former name replaced by its name of now.

    Raises:
      UserError: the key never had that name.
    """
    from vpns_jax.experiment import config

    now = config.former_keys().get(key)
    if now is None:
        meant = re.search(r'Did you mean \\*"(\w+)', str(error))
        hint = f"did you mean {meant[1]}? " if meant else ""
        raise UserError(
            f"--config: there is no key {short(key)[1:-1]}; {hint}configs/default.py lists all keys"
        ) from error
    # ml_collections looks for overrides there, whatever it is told to parse.
    sys.argv = [re.sub(rf"^(--?config\.){re.escape(key)}(?==|$)", rf"\g<1>{now}", argument) for argument in sys.argv]
    return [re.sub(rf"^(--?config\.){re.escape(key)}(?==|$)", rf"\g<1>{now}", argument) for argument in argv]


def _reason(error: BaseException) -> str:
    """What an error of a config file says: its kind, where that says more than its text, and how the text ends."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1].rpartition("earlier failure to load: ")[2] if lines else "no reason given"
    plain = isinstance(error, flags.Error | ValueError | SyntaxError | OSError)
    return one_line(last if plain and lines else f"{type(error).__name__}: {last}")[:300]
