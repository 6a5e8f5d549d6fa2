"""What the benchmarks share: timing, facts about the machine, a table and a JSON file.

Times vary on a busy machine. So all compared functions run in turns in one process, and the shortest time of each
counts, because it was disturbed least.
"""

import collections
import importlib.metadata
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

# A function that takes more seconds than this runs only once, and that time counts.
_SLOW = 5.0


def interleaved(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Times functions in turns, after a first call of each that does not count.

    Args:
      functions: compiled functions by name; each returns the arrays to wait for.
      repeats: how many times each runs.

    Returns:
      The shortest time of each function, in seconds.
    """
    first = {name: _seconds(function) for name, function in functions.items()}
    least = {name: seconds if seconds > _SLOW else math.inf for name, seconds in first.items()}
    for _ in range(repeats):
        for name, function in functions.items():
            if first[name] <= _SLOW:
                least[name] = min(least[name], _seconds(function))
    return least


def turns(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Times functions in turns, after a first call of each that does not count; every other turn goes backwards.

    Args:
      functions: functions by name; each returns the arrays to wait for.
      repeats: how many times each runs.

    Returns:
      The seconds of each function in each turn.
    """
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function())
    for turn in range(repeats):
        for name in list(functions)[:: -1 if turn % 2 else 1]:
            taken[name].append(_seconds(functions[name]))
    return taken


def paced(
    functions: Mapping[str, Callable[[], Any]], *, goes: int = 5, least: float = 0.1, ahead: int = 4
) -> dict[str, float]:
    """Times functions in turns, many calls in one go, so that the time to start a call hides behind the last call.

    On accelerators a call returns before its work is done. A single call that is waited for also measures the way
    there and back, about 0.1 ms.

    Args:
      functions: functions by name; each returns the arrays to wait for, or leaves PyTorch's device to be waited for.
      goes: how often each has its turn.
      least: seconds that a go should take at least; it may have a single call.
      ahead: calls that may be under way at the same time.

    Returns:
      The seconds of a call of each function, the median of its goes.
    """
    for function in functions.values():
        _finish(function())
    calls = {name: max(1, math.ceil(least / _go(function, 1, ahead))) for name, function in functions.items()}
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(goes):
        for name, function in functions.items():
            taken[name].append(_go(function, min(calls[name], 1000), ahead))
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _go(function: Callable[[], Any], calls: int, ahead: int) -> float:
    under_way: collections.deque[Any] = collections.deque()
    start = time.perf_counter()
    for _ in range(calls):
        under_way.append(function())
        if len(under_way) > ahead:
            jax.block_until_ready(under_way.popleft())
    _finish(list(under_way))
    return (time.perf_counter() - start) / calls


def _finish(results: Any) -> None:
    jax.block_until_ready(results)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def facts() -> dict[str, Any]:
    """Facts about the hardware, and the versions of libraries."""
    device = jax.devices()[0]
    cpus = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "device": device.device_kind,
        "devices": jax.device_count(),
        "platform": device.platform,
        "cpu": cpus[0] if cpus else platform.processor(),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("jax", "jaxlib", "flax", "numpy", "onnxruntime", "torch")},
    }


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of rows with the same keys; numbers have three digits."""
    cells = [[_cell(value) for value in row.values()] for row in rows]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def write_json(path: str, benchmark: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the rows and the facts about the machine.

    Args:
      path: the file to write.
      benchmark: the benchmark's name.
      rows: the rows of the table.
    """
    Path(path).write_text(json.dumps({"benchmark": benchmark, **facts(), "rows": rows}, indent=2) + "\n")
