"""Runs or resumes one experiment.

Any key of the config can be set on the command line: `--config.data.batch_size=128`. Run the same command again to
continue where it stopped. docs/scale.md shows how to use many devices and machines.
"""

import shlex
import sys
from pathlib import Path

from absl import flags

from vpns_jax import cli

# Needed only if the processes were started by a launcher that JAX does not know.
_COORDINATOR = flags.DEFINE_string("coordinator", None, "With several processes: HOST:PORT of the first one.")
_PROCESSES = flags.DEFINE_integer("processes", None, "With several processes: their number.")
_PROCESS = flags.DEFINE_integer("process", None, "With several processes: the number of this one, from 0.")


def main(arguments: list[str]) -> int:
    """Runs `python -m vpns_jax run`.

    Args:
      arguments: the arguments after the command's name.

    Returns:
      The exit code: 0, or as `cli.end` says.
    """
    # Configs import other configs of the checkout, which a console script does not have on its path.
    if not {"", str(Path.cwd())}.intersection(sys.path):
        sys.path.insert(0, str(Path.cwd()))
    return start(["python", "-m", "vpns_jax", "run"], arguments)


def start(program: list[str], arguments: list[str]) -> int:
    """Runs or resumes an experiment.

    Args:
      program: the words of the command before its arguments, for the report.
      arguments: the arguments.

    Returns:
      The exit code: 0, or as `cli.end` says.
    """
    if {"-h", "--help"} & {*arguments}:
        return cli.end(lambda: print(_usage(program)))

    def run() -> None:
        config, workdir = cli.parse([program[-1], *arguments])
        from vpns_jax.experiment import run
        from vpns_jax.parallel import processes, startup

        startup.prepare(fast_compile=config.fast_compile)
        processes.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
        run.run(config, workdir, shlex.join([*program, *arguments]))

    return cli.end(run)


def _usage(program: list[str]) -> str:
    """One line about each flag."""
    names = ("config", "workdir", "verbose", "coordinator", "processes", "process")
    lines = [f"  --{name:12} {flags.FLAGS[name].help}" for name in names]
    lines.insert(1, f"  --config.{'KEY':5} Another value of a key; configs/default.py lists all keys.")
    return "\n".join(
        [f"usage: {' '.join(program)} --config=FILE [--config.KEY=VALUE ...] [--workdir=FOLDER]", "", *lines]
    )
