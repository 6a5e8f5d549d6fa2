"""Runs one part in this process; the parent reads its rows from a file, a JSON list in each line.

python -m benchmarks.accelerator.child MODULE ROWS ARGUMENTS
"""

import importlib
import json
import os
import sys
import threading
import time
from pathlib import Path


def main() -> None:
    """Runs the part that the arguments name."""
    module, rows, arguments = sys.argv[1:]
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with Path(rows).open("a") as file:
        for row in importlib.import_module(module).rows(**json.loads(arguments)):
            file.write(json.dumps(row) + "\n")
            file.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    # Tearing down JAX and PyTorch takes seconds, and all that matters is written.
    os._exit(0)


def _end_with(parent: int) -> None:
    """Ends this process when its parent has ended, so that no one holds the accelerator."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main()
