"""What all commands share: the flags for a config and a folder, and the handling of errors."""

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
from vpns_jax.output import until_closed

if TYPE_CHECKING:
    from vpns_jax.experiment.config import Config

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment's config file.", lock_config=True)
_VERBOSE = flags.DEFINE_bool("verbose", False, "Also lists all that an error is about, where it names only some.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; runs/NAME of the config if not given.")
_OPTIONS = "the options are --config=FILE, --config.KEY=VALUE and --workdir=FOLDER"


def end(run: Callable[[], Any], *, verbose: bool = False) -> int:
    """Runs a command, and prints its errors in one line.

    Args:
      run: the command; it may return an exit code.
      verbose: whether all that an error is about is listed; the flag `--verbose` asks for it, too.

    Returns:
      The command's exit code, or 0; 2 after an error that the user can correct; 130 after an interrupt; 141 if nobody
      reads the output any more.
    """
    files.escape_output()
    return until_closed(lambda: _ended(run, verbose))


def _ended(run: Callable[[], Any], verbose: bool) -> int:
    try:
        return run() or 0
    except UserError as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        if verbose or (flags.FLAGS.is_parsed() and _VERBOSE.value):
            sys.stderr.writelines(f"  {line}\n" for line in error.details)
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; run the same command to go on\n")
        return 130


def parse(argv: list[str]) -> tuple["Config", Path]:
    """Reads a command line that has a config.

    Args:
      argv: the command line, starting with the program's name.

    Returns:
      The checked config, and the run's folder.

    Raises:
      UserError: a flag or key is unknown, the config cannot be loaded, or a value is not allowed.
    """
    tree = _tree(argv)
    # Imported only now, so that an error in the flags is reported without waiting for these imports.
    from vpns_jax.experiment import config

    workdir = None if _WORKDIR.value is None else user_path(_WORKDIR.value, "--workdir")
    parsed = config.parse(tree)
    return parsed, workdir or Path(f"runs/{parsed.name}")


def folder(argv: list[str]) -> Path:
    """Reads a command line that names only the folder of a run.

    Args:
      argv: the command line, starting with the program's name.

    Returns:
      The folder.

    Raises:
      UserError: a flag is unknown, there is more than flags, or --workdir is missing or no path.
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
      argv: the command line, starting with the program's name.

    Returns:
      The arguments that are no flags.

    Raises:
      UserError: a flag is unknown, or its value is not allowed.
    """
    try:
        return flags.FLAGS(argv)[1:]
    except flags.Error as error:
        raise UserError(one_line(error)) from error


def _tree(argv: list[str]) -> dict[str, Any]:
    """The config as plain dicts."""
    # ml_collections logs warnings about errors that are reported here.
    logging.getLogger("absl").setLevel(logging.ERROR)
    before = set(flags.FLAGS)
    try:
        rest = flags.FLAGS(argv)[1:]
        loaded = _CONFIG.value
        # If the file could not be loaded, `loaded` is an object that raises the reason on any access.
        getattr(loaded, "to_dict", None)
    except KeyboardInterrupt:
        raise
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"{short(str(error))[1:-1]}; {_OPTIONS}") from error
    # A config file is a program, which also parses the overrides: it can raise any exception, even SystemExit.
    except BaseException as error:
        unknown = _unknown_key(argv, error)
        if unknown is None:
            raise UserError(f"--config: {_reason(error)}") from error
        renamed = _renamed(argv, unknown, error)
        # Overrides became flags. They are removed before the command line is read again.
        flags.FLAGS.unparse_flags()
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        return _tree(renamed)
    if loaded is None and not any(re.match(r"--?config(=|$)", argument) for argument in argv):
        raise UserError("--config is missing; name a file such as configs/quickstart.py")
    if not isinstance(loaded, ConfigDict):
        raise UserError(f"--config: get_config() returns {short(loaded)}; it must return an ml_collections.ConfigDict")
    if rest:
        raise UserError(f"unexpected arguments {short(rest)}; {_OPTIONS}")
    tree = loaded.to_dict()
    _check_lists(argv, tree)
    return tree


def _check_lists(argv: list[str], tree: dict[str, Any]) -> None:
    """Raises `UserError` for a dict or set in place of a tuple; ml_collections would silently take a dict's keys."""
    for argument in argv:
        match = re.match(r"--?config\.([^=]+)=\s*(\{.*)", argument, re.DOTALL)
        value: Any = tree
        for part in match[1].split(".") if match else ():
            value = value.get(part) if isinstance(value, dict) else None
        if match and isinstance(value, tuple):
            raise UserError(f"config.{match[1]} is {short(match[2])[1:-1]}; it must be a tuple, such as (a, b) or a,b")


def _unknown_key(argv: list[str], error: BaseException) -> str | None:
    """The dotted key of an override that the config does not have; None if the error has another cause."""
    named = re.search(r"'(\w+)\\*'", str(error)) if isinstance(error, KeyError | AttributeError) else None
    for argument in argv:
        match = re.match(r"--?config\.([^=]+)", argument)
        parts = match[1].split(".") if match else []
        if named and named[1] in parts:
            return ".".join(parts[: parts.index(named[1]) + 1])
    return None


def _renamed(argv: list[str], key: str, error: BaseException) -> list[str]:
    """The command line with a key's former name replaced by its present name.

    Raises:
      UserError: no key ever had that name.
    """
    from vpns_jax.experiment import config

    now = config.former_keys().get(key)
    if now is None:
        meant = re.search(r'Did you mean \\*"(\w+)', str(error))
        hint = f"did you mean {meant[1]}? " if meant else ""
        raise UserError(
            f"--config: there is no key {short(key)[1:-1]}; {hint}configs/default.py lists all keys"
        ) from error
    # ml_collections always looks for overrides in sys.argv, even if it is given another command line.
    sys.argv = [re.sub(rf"^(--?config\.){re.escape(key)}(?==|$)", rf"\g<1>{now}", argument) for argument in sys.argv]
    return [re.sub(rf"^(--?config\.){re.escape(key)}(?==|$)", rf"\g<1>{now}", argument) for argument in argv]


def _reason(error: BaseException) -> str:
    """The text of a config file's error: the end of its message, after its type where that helps."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1].rpartition("earlier failure to load: ")[2] if lines else "no reason given"
    plain = isinstance(error, flags.Error | ValueError | SyntaxError | OSError)
    return one_line(last if plain and lines else f"{type(error).__name__}: {last}")[:300]
