"""Prints the table of docs/reliability.md; exit code 1 if a case is not as promised."""

import sys
import tempfile
from pathlib import Path

# Flags of XLA, before jax is imported.
import tests.conftest  # noqa: F401
from tests.faults.families import tallies
from tests.faults.tally import table


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        counted = list(tallies(Path(scratch), inputs=300, damages=64))
    print(table(counted))
    for tally in counted:
        for line in tally.failures:
            print(f"{tally.family}: {line}", file=sys.stderr)
    return int(any(tally.broken for tally in counted))


if __name__ == "__main__":
    sys.exit(main())
