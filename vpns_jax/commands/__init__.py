"""The commands of `python -m vpns_jax`, a file each: every one has `main(arguments)`, which returns the exit code."""

import importlib
import sys

# What each does, in a line. A command's module is imported when it is called.
COMMANDS = {
    "run": "run or resume an experiment: --config=FILE --workdir=FOLDER",
    "predict": "classify images with a finished network: NETWORK IMAGES_OR_FOLDER...",
    "shrink": "remove what is dead from a finished network: NETWORK --out=FILE",
    "export": "write a finished network for other programs: NETWORK --format=FORMAT --out=PATH",
    "data": "list data sets, or prepare one",
}


def main(arguments: list[str] | None = None) -> int:
    """Calls a command.

    Args:
      arguments: its name, and what it is given; by default the command line.

    Returns:
      The exit code: 0, or 2 for something that the caller can mend.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        lines = [f"  {command:8} {what}" for command, what in COMMANDS.items()]
        print("\n".join(["usage: python -m vpns_jax COMMAND ...", "", *lines]))
        return 0
    if name not in COMMANDS:
        from vpns_jax.errors import short

        sys.stderr.write(f"error: unknown command {short(name)}; known: {', '.join(COMMANDS)}\n")
        return 2
    return importlib.import_module(f"vpns_jax.commands.{name}").main(rest)
