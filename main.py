"""Runs or resumes one experiment: `python main.py --config=configs/quickstart.py --workdir=runs/quickstart`.

Any key of the config can be set on the command line: `--config.data.batch_size=128`. Run the same command again to
continue where it stopped. docs/scale.md shows how to use many devices and machines.
"""

import shlex
import sys

from absl import flags

from vpns_jax import cli

# Needed only if the processes were started by a launcher that JAX does not know.
_COORDINATOR = flags.DEFINE_string("coordinator", None, "With several processes: HOST:PORT of the first one.")
_PROCESSES = flags.DEFINE_integer("processes", None, "With several processes: their number.")
_PROCESS = flags.DEFINE_integer("process", None, "With several processes: the number of this one, from 0.")


def main(argv: list[str]) -> int:
    """Runs the command.

    Args:
      argv: the command line, starting with the program's name.

    Returns:
      The exit code: 0, or 2 after an error that the user can fix.
    """

    def run() -> None:
        config, workdir = cli.parse(argv)
        from vpns_jax.experiment import run
        from vpns_jax.parallel import processes, startup

        startup.prepare()
        processes.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
        run.run(config, workdir, shlex.join(["python", *argv]))

    return cli.end(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
