"""Runs or resumes one experiment: `python main.py --config=configs/quickstart.py --workdir=runs/quickstart`.

Any key of the config can be set on the command line: `--config.data.batch_size=128`. Run again with the same
arguments, it goes on where it was stopped. docs/scale.md runs it on many devices and machines.
"""

import shlex
import sys

from absl import flags

from vpns_jax import cli

# Where no launcher that JAX knows has started them.
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Of several processes: HOST:PORT of the first.")
_PROCESSES = flags.DEFINE_integer("processes", None, "Of several processes: how many.")
_PROCESS = flags.DEFINE_integer("process", None, "Of several processes: the number of this one, from 0.")


def main(argv: list[str]) -> int:
    """Returns the exit code: 0, or 2 for something that the caller can mend."""

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
