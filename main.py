"""Runs or resumes one experiment: `python main.py --config=configs/quickstart.py --workdir=runs/quickstart`.

The same as `python -m vpns_jax run`; see `vpns_jax.commands.run`.
"""

import sys

from vpns_jax.commands import run


def main(argv: list[str]) -> int:
    """Runs the command.

    Args:
      argv: the command line, starting with the program's name.

    Returns:
      The exit code: 0, or 2 after an error that the user can fix.
    """
    return run.start(["python", argv[0]], argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv))
