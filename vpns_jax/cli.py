"""What every command shares: the flags that name a config and a folder, and how it ends."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import config_flags

from vpns_jax import files
from vpns_jax.errors import UserError

if TYPE_CHECKING:
    from vpns_jax.experiment.config import Config

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment's config file.", lock_config=True)
_VERBOSE = flags.DEFINE_bool("verbose", False, "Also lists all that an error is about, where it names only some.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; runs/NAME of the config if not given.")


def end(run: Callable[[], Any]) -> int:
    """Calls `run`. Returns the exit code: what it returns or 0; 2 for something that the caller can mend."""
    files.escape_output()
    try:
        return run() or 0
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        if flags.FLAGS.is_parsed() and _VERBOSE.value:
            sys.stderr.writelines(f"  {line}\n" for line in error.details)
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; run the same command to go on\n")
        return 130


def parse(argv: list[str]) -> tuple["Config", Path]:
    """The checked config that a command line names, and the folder.

    Raises:
      UserError: an unknown flag or key, a config that cannot be loaded, a value that is not allowed.
    """
    tree = _tree(argv)
    # After the flags: a typing error should not wait for the imports.
    from vpns_jax.experiment import config

    parsed = config.parse(tree)
    return parsed, Path(_WORKDIR.value or f"runs/{parsed.name}")


def folder(argv: list[str]) -> Path:
    """The folder that a command line names, for a command that reads what a run has written.

    Raises:
      UserError: an unknown flag, or no folder.
    """
    try:
        rest = flags.FLAGS(argv)[1:]
    except flags.Error as error:
        raise UserError(str(error)) from error
    if rest or _WORKDIR.value is None:
        raise UserError(f"found {rest or 'no --workdir'}; give --workdir=FOLDER of a finished run or sweep")
    return Path(_WORKDIR.value)


def _tree(argv: list[str]) -> dict[str, Any]:
    """The config as plain dicts."""
    try:
        rest = flags.FLAGS(argv)[1:]
        if _CONFIG.value is None:
            raise UserError("--config is missing; name a file such as configs/quickstart.py")
        tree = _CONFIG.value.to_dict()
    except UserError:
        raise
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"{error}; the options are --config=FILE, --config.KEY=VALUE and --workdir=FOLDER") from error
    except (KeyError, AttributeError) as error:
        raise UserError(f"--config: {_no_key(error)}; configs/default.py lists all keys") from error
    # A config file is a program and an override is parsed by it: either can raise anything.
    except Exception as error:
        raise UserError(f"--config: {_last_line(error)}") from error
    if rest:
        raise UserError(f"unexpected arguments {rest}; options look like --config=FILE or --config.KEY=VALUE")
    return tree


def _no_key(error: Exception) -> str:
    """What a key is called that there is not, and which there is."""
    # ml_collections raises the one error around the other, each quoting the text once more.
    text = str(error).replace("\\n", "\n").replace("\\", "")
    key = text.strip("'\"\n").partition("\n")[0].strip("'\"")
    meant = re.search(r'Did you mean "([^"]+)"', text)
    return f"there is no key {key!r}" + (f" (did you mean {meant[1]!r}?)" if meant else "")


def _last_line(error: Exception) -> str:
    """How an error's text ends, which may hold a whole traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
