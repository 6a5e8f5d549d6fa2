"""Runs or resumes one experiment: `python main.py --config=configs/quickstart.py --workdir=runs/quickstart`.

Any key of the config can be set on the command line: `--config.data.batch_size=128`. Run again with the same
arguments, it goes on where it was stopped.
"""

import shlex
import sys

from vpns_jax import command


def main(argv: list[str]) -> int:
    """Returns the exit code: 0, or 2 for something that the caller can mend."""

    def run() -> None:
        config, workdir = command.parse(argv)
        from vpns_jax import experiment, startup

        startup.prepare()
        experiment.run(config, workdir, shlex.join(["python", *argv]))

    return command.end(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
