"""The user's functions, named in a config or on the command line: `my_package.my_module:function`, `file.py:function`.

A name runs code when it is resolved. So only names that the user gives are resolved, and none that a file holds.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from vpns_jax.errors import UserError, short, shorten

_REFERENCE = re.compile(r"(?P<where>[A-Za-z_][\w.]*|[^:]+\.py):(?P<function>[A-Za-z_]\w*)")


def is_reference(name: str) -> bool:
    """Whether a name has the form `module:function` or `file.py:function`."""
    return _REFERENCE.fullmatch(name) is not None


def resolve(name: str, what: str) -> Callable[..., Any]:
    """Imports the function. Modules in the current folder are found, too, and what a file imports from its own folder.

    Args:
      name: a name of which `is_reference` is true.
      what: what the function makes, for errors, such as "data set".

    Returns:
      The function.

    Raises:
      UserError: the module cannot be imported or has no such function.
    """
    where, _, function = name.rpartition(":")
    try:
        module = _imported(where)
    except UserError as error:
        raise UserError(f"{what} {short(name)}: {error}") from error
    # Whatever the module raises while it is imported; a script without a guard may end the program, too.
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{what} {short(name)}: module {shorten(where, 80)} cannot be imported: {describe(error)}"
        ) from error
    made = getattr(module, function, None)
    if not callable(made):
        raise UserError(f"{what} {short(name)}: module {shorten(where, 80)} has no function {function}")
    return made


def source(function: Callable[..., Any]) -> Path | None:
    """The file that defines a function or a class; None for one that was typed into an interpreter."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
    except (TypeError, OSError):
        return None
    return Path(file) if file and Path(file).is_file() else None


def describe(error: BaseException) -> str:
    """An error of the user's code on one line."""
    return shorten(f"{type(error).__name__}: {error}", 150)


def _imported(where: str) -> ModuleType:
    if not where.endswith(".py"):
        _search(Path.cwd())
        return importlib.import_module(where)
    file = Path(where).expanduser().resolve()
    if not file.is_file():
        raise UserError("there is no such file")
    if "." in file.stem:
        # Python would look for a package of that name.
        raise UserError(f"{file.name} cannot be imported: a module's file has no dot before .py; give it another name")
    # The file's folder is searched last, so that none of its modules takes the place of a library's.
    _search(file.parent)
    module = importlib.import_module(file.stem)
    # A module that is built in has no `__file__`.
    if Path(getattr(module, "__file__", None) or "").resolve() != file:
        raise UserError(f"there is another module called {file.stem}; give the file another name")
    return module


def _search(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
