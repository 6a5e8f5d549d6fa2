"""Runs or resumes one experiment: `python main.py --config=configs/quickstart.py --workdir=runs/quickstart`.

Any key of the config can be set on the command line: `--config.data.batch_size=128`. Run again with the same
arguments, it goes on where it was stopped. docs/scale.md runs it on many devices and machines.
"""

import shlex
import sys

from absl import flags

from vpns_jax import command

# Where no launcher that JAX knows has started them.
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Of several processes: HOST:PORT of the first.")
_PROCESSES = flags.DEFINE_integer("processes", None, "Of several processes: how many.")
_PROCESS = flags.DEFINE_integer("process", None, "Of several processes: the number of this one, from 0.")


def main(argv: list[str]) -> int:
    """Returns the exit code: 0, or 2 for something that the caller can mend."""

    def run() -> None:
        config, workdir = command.parse(argv)
        from vpns_jax import experiment, processes, startup

        startup.prepare()
        processes.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
        experiment.run(config, workdir, shlex.join(["python", *argv]))

    return command.end(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
