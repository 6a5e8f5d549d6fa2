"""The commands of `python -m vpns_jax`. Each has a module with `main(arguments)`, which returns the exit code."""

import importlib
import sys

from vpns_jax.output import until_closed

# One line about each command. Its module is imported only when it is called.
COMMANDS = {
    "run": "run or resume an experiment: --config=FILE --workdir=FOLDER",
    "predict": "classify images with a finished network: NETWORK IMAGES_OR_FOLDER...",
    "shrink": "remove the dead parts of a finished network: NETWORK --out=FILE",
    "export": "write a finished network for other programs: NETWORK --format=FORMAT --out=PATH",
    "data": "list data sets, or prepare one",
}


def main(arguments: list[str] | None = None) -> int:
    """Calls a command.

    Args:
      arguments: the command's name and its arguments; by default those of the command line.

    Returns:
      The exit code: 0; 2 after an error that the user can fix; 130 after an interrupt; 141 if nobody reads the output
      any more.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    return until_closed(lambda: _call(name, rest))


def _call(name: str, arguments: list[str]) -> int:
    if name in ("-h", "--help"):
        lines = [f"  {command:8} {what}" for command, what in COMMANDS.items()]
        print("\n".join(["usage: python -m vpns_jax COMMAND ...", "", *lines]))
        return 0
    if name not in COMMANDS:
        from vpns_jax.errors import short

        sys.stderr.write(f"error: unknown command {short(name)}; known: {', '.join(COMMANDS)}\n")
        return 2
    return importlib.import_module(f"vpns_jax.commands.{name}").main(arguments)
