"""Measures everything worth knowing on whatever accelerator there is, in one command that may be cut off.

    python -m benchmarks.accelerator --minutes=9 --out=DIR
    python -m benchmarks.accelerator --minutes=3 --out=DIR --rehearse

Parts run in processes of their own, the most important first, each with a time limit. DIR gets results.json, page.md
and log.txt, which are written as results come. `--rehearse` runs everything at tiny sizes, on a CPU, too.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path

from benchmarks.accelerator import running
from benchmarks.accelerator.parts import MINUTES, PARTS


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    names = [part.name for part in PARTS]
    described = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator", description=described)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="run in this order")
    parser.add_argument("--rehearse", action="store_true", help="run everything at tiny sizes")
    chosen = parser.parse_args(arguments)
    by_name = {part.name: part for part in PARTS}
    command = shlex.join(["python", "-m", "benchmarks.accelerator", *(arguments or sys.argv[1:])])
    head = {"command": command, "started": time.strftime("%Y-%m-%d %H:%M")}
    parts = [by_name[name] for name in chosen.parts]
    running.run(parts, chosen.out, minutes=chosen.minutes, tiny=chosen.rehearse, head=head)
    print((chosen.out / "page.md").read_text())


if __name__ == "__main__":
    main()
