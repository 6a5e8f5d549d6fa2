"""Runs parts one after the other, each in a process of its own with a time limit."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accelerator import report
from benchmarks.accelerator.parts import MINUTES, Part
from benchmarks.accelerator.report import Told

ROOT = Path(__file__).parent.parent.parent
LOG = "log.txt"
# A part is not started with fewer seconds left.
_WORTHWHILE = 8.0
_TAIL = 1500


def run(parts: Sequence[Part], directory: Path, *, minutes: float, tiny: bool, head: Mapping[str, Any]) -> list[Told]:
    """Runs the parts, and writes what they tell as it comes.

    Args:
      parts: the parts, the most important first.
      directory: gets the results, the page and the log.
      minutes: the time for everything; a part that does not fit is cut off or not started.
      tiny: whether to run everything at tiny sizes.
      head: facts about this run for the results.

    Returns:
      What the parts told.
    """
    directory.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * minutes
    told = [_waiting(part) for part in parts]
    report.write(directory, head, told)
    with tempfile.TemporaryDirectory() as scratch:
        for part, state in zip(parts, told, strict=True):
            left = deadline - time.monotonic()
            if left < _WORTHWHILE:
                state |= {"state": "not started", "reason": "no time was left"}
                continue
            # A rehearsal may run on a busy CPU, and its times do not matter.
            limit = left if tiny else min(left, part.seconds * max(1.0, minutes / MINUTES))
            _Running(part, state, Path(scratch), directory, tiny).follow(
                limit, lambda: report.write(directory, head, told)
            )
            print(f"{part.name}: {state['state']} in {state['seconds']:.0f} s {state['reason'] or ''}", flush=True)
            report.write(directory, head, told)
    report.write(directory, head, told)
    return told


def _waiting(part: Part) -> Told:
    told = {"part": part.name, "title": part.title, "state": "waiting", "seconds": None, "reason": None}
    return {**told, "tables": {}, "log": ""}


class _Running:
    """A part's process."""

    def __init__(self, part: Part, told: Told, scratch: Path, directory: Path, tiny: bool) -> None:
        self._part, self._told, self._log = part, told, directory / LOG
        self._rows = scratch / f"{part.name}.jsonl".replace(" ", "_")
        self._rows.touch()
        self._read = 0
        # Programs that one part compiled serve the next.
        cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(scratch / "compiled"))
        self._environment = {"JAX_COMPILATION_CACHE_DIR": cache} | _environment(tiny)
        arguments = json.dumps({"tiny": tiny, **part.arguments})
        module = "benchmarks.accelerator.child"
        self._command = [sys.executable, "-m", module, part.module, str(self._rows), arguments]

    def follow(self, limit: float, write: Any) -> None:
        """Runs the process for at most `limit` seconds; `write` is called after each row."""
        told, begin = self._told, time.monotonic()
        told["state"], told["reason"] = "begun", "it had not ended when this page was written"
        write()
        with self._log.open("ab") as log:
            log.write(f"== {self._part.name}\n".encode())
            log.flush()
            begun = log.tell()
            process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=os.environ | self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
            try:
                code = self._wait(process, begin + limit, write)
            finally:
                _end(process)
        self._gather()
        told["seconds"] = round(time.monotonic() - begin, 1)
        told["state"], told["reason"] = _outcome(code, limit)
        if code:
            told["log"] = _tail(self._log, begun)
            told["reason"] += _last_line(told["log"])

    def _wait(self, process: subprocess.Popen[bytes], until: float, write: Any) -> int | float:
        """The exit code; infinity if the time was up."""
        while process.poll() is None:
            if time.monotonic() > until:
                return math.inf
            time.sleep(0.1)
            if self._gather():
                write()
        return process.returncode

    def _gather(self) -> bool:
        """Reads the rows that have come, and tells whether there were any."""
        with self._rows.open("rb") as file:
            file.seek(self._read)
            lines = [line for line in file.readlines() if line.endswith(b"\n")]
        self._read += sum(map(len, lines))
        for table, values in map(json.loads, lines):
            self._told["tables"].setdefault(table, []).append(values)
        return bool(lines)


def _outcome(code: int | float, limit: float) -> tuple[str, str | None]:
    if code == math.inf:
        return "cut off", f"it took more than {limit:.0f} s"
    return ("failed", f"exit code {code}") if code else ("done", None)


def _environment(tiny: bool) -> dict[str, str]:
    # JAX and PyTorch share the device in some parts, so JAX may not take most of the memory beforehand.
    shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    # A rehearsal is not timed, and a CPU compiles for long.
    return shared | ({"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} if tiny else {})


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: Path, begun: int) -> str:
    with log.open("rb") as file:
        file.seek(max(begun, log.stat().st_size - _TAIL))
        return file.read().decode(errors="replace")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f": {lines[-1][:200]}".replace("|", "/") if lines else ""
