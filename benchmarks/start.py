"""Where the time of the quickstart goes: in its first start, and when it is started again elsewhere.

    python -m benchmarks.start --starts=5 --figure=start.png

Each start is a new process in an empty folder. A first start finds nothing in the cache. Another one finds the source
network and the compiled programs there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import measure, spans

ROOT = Path(__file__).parent.parent


def start(config: str, overrides: Sequence[str], cache: Path) -> dict[str, float]:
    """Runs a config from start to end.

    Args:
      config: the config file.
      overrides: overrides of config keys.
      cache: the folder of source networks and compiled programs.

    Returns:
      The seconds, see `spans.recorded`.

    Raises:
      RuntimeError: the run ended with an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        seconds = Path(folder, "seconds.json")
        arguments = [f"--config={config}", f"--workdir={folder}/run", *overrides]
        command = [sys.executable, "-m", "benchmarks.spans", str(seconds), str(time.time()), *arguments]
        environment = os.environ | {"VPNS_JAX_CACHE": str(cache)}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=False)
        if done.returncode or not seconds.exists():
            raise RuntimeError(f"{arguments} ended with exit code {done.returncode}")
        read: dict[str, float] = json.loads(seconds.read_text())
        return read


def medians(starts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each part over several starts."""
    return {part: statistics.median(each[part] for each in starts) for part in starts[0]}


def figure(rows: Sequence[Mapping[str, float | str]], path: Path) -> None:
    """Draws one bar for each row, with the parts side by side.

    Args:
      rows: the rows of the table.
      path: the PNG to write.
    """
    from matplotlib import colormaps

    from vpns_jax.analysis.style import INK, dress, new_figure, save

    drawing = new_figure(8.0, 1.0 + 0.6 * len(rows))
    axes = drawing.add_subplot()
    for place, row in enumerate(rows):
        left = 0.0
        for number, part in enumerate(spans.PARTS):
            width = float(row[part])
            color = colormaps["tab10"](number)
            axes.barh(place, width, left=left, color=color, label=part if place == 0 else None)
            left += width
        axes.plot([float(row["first row"])] * 2, [place - 0.4, place + 0.4], color=INK, linewidth=2)
    axes.set_yticks(range(len(rows)), [str(row["start"]) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("seconds (the line: the first row of the table)")
    dress(axes, grid="x")
    drawing.legend(loc="outside upper center", ncols=len(spans.PARTS), fontsize=8, frameon=False)
    save(drawing, path)


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark, prints a table and, with --figure and --json, writes files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--starts", type=int, default=5, help="of each kind; the table has their medians")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--json")
    chosen, overrides = parser.parse_known_args(arguments)
    first, again = [], []
    for _ in range(chosen.starts):
        with tempfile.TemporaryDirectory() as cache:
            first.append(start(chosen.config, overrides, Path(cache)))
            again.append(start(chosen.config, overrides, Path(cache)))
    rows: list[dict[str, float | str]] = [{"start": "first", **medians(first)}, {"start": "again", **medians(again)}]
    print(measure.table(rows))
    print(measure.facts())
    if chosen.figure:
        figure(rows, chosen.figure)
    if chosen.json:
        measure.write_json(chosen.json, "start", rows)


if __name__ == "__main__":
    main()
