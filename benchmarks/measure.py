"""What the benchmarks share: honest ratios, the facts of the machine, a table and a JSON file.

Timings of a busy machine wander. So everything compared runs in turns in one process, and the least of each one's
times counts: it is the one that others disturbed least.
"""

import importlib.metadata
import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

# What takes more seconds than this is run once only, and that time counts.
_SLOW = 5.0


def interleaved(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The least seconds of each function over `repeats` rounds, after a first call that does not count.

    Args:
      functions: compiled already; each returns what must be waited for.
    """
    first = {name: _seconds(function) for name, function in functions.items()}
    least = {name: seconds if seconds > _SLOW else math.inf for name, seconds in first.items()}
    for _ in range(repeats):
        for name, function in functions.items():
            if first[name] <= _SLOW:
                least[name] = min(least[name], _seconds(function))
    return least


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def facts() -> dict[str, Any]:
    """Hardware and versions, for the record."""
    device = jax.devices()[0]
    cpus = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "device": device.device_kind,
        "devices": jax.device_count(),
        "platform": device.platform,
        "cpu": cpus[0] if cpus else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("jax", "jaxlib", "flax", "numpy", "torch")},
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of rows that share their keys; numbers to three digits."""
    cells = [[_cell(value) for value in row.values()] for row in rows]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def write_json(path: str, benchmark: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows with the facts of the machine."""
    Path(path).write_text(json.dumps({"benchmark": benchmark, **facts(), "rows": rows}, indent=2) + "\n")
