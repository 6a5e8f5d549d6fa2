"""The time of the quickstart until its first finished epoch, at the first start and when it is started again.

    python -m benchmarks.start

Each start is a new process in an empty folder. The second start finds the programs that the first one compiled. Both
find the data and the source network in the cache.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import measure

ROOT = Path(__file__).parent.parent


def seconds_to_first_epoch(config: str, overrides: list[str], cache: Path) -> float:
    """The seconds from a run's start until its first epoch is in the log; then the run is stopped.

    Args:
      config: the config file.
      overrides: overrides of config keys.
      cache: the folder of compiled programs.

    Returns:
      The seconds.

    Raises:
      RuntimeError: the run ended with an error.
    """
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "metrics.jsonl")
        command = [sys.executable, "main.py", f"--config={config}", f"--workdir={folder}", *overrides]
        begin = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and not (log.exists() and log.read_text().count("\n")):
                time.sleep(0.05)
            seconds = time.perf_counter() - begin
            finished = process.poll()
            process.kill()
    if finished:
        raise RuntimeError(f"{command} ended with exit code {finished}")
    return seconds


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark, prints a table and, with --json, writes a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--json")
    chosen, overrides = parser.parse_known_args(arguments)
    # This start prepares the data and the source network, so that they do not count.
    with tempfile.TemporaryDirectory() as cache:
        seconds_to_first_epoch(chosen.config, overrides, Path(cache))
    with tempfile.TemporaryDirectory() as cache:
        first, second = (seconds_to_first_epoch(chosen.config, overrides, Path(cache)) for _ in range(2))
    rows = [{"start": "first", "seconds": first}, {"start": "again", "seconds": second}]
    print(measure.table(rows))
    print(f"{first / second:.1f} times as fast")
    print(measure.facts())
    if chosen.json:
        measure.write_json(chosen.json, "start", rows)


if __name__ == "__main__":
    main()
