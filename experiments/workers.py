"""Jobs on several processes: a job that raises, or that takes its process with it, stops no other."""

import dataclasses
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

_SPAWN = multiprocessing.get_context("spawn")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one job ended; `error` is None if well, else its last line and the whole traceback."""

    name: str
    error: tuple[str, str] | None


def run_all(
    jobs: dict[str, Any], work: Callable[[Any], None], *, workers: int, devices: Sequence[str]
) -> Iterator[Outcome]:
    """Calls `work` on the value of every job, and tells of each as it ends.

    Args:
      jobs: by name; values that can be pickled.
      work: importable, called in another process.
      workers: how many processes. They share out this machine's cores.
      devices: for each worker what CUDA_VISIBLE_DEVICES is to be; empty to leave it alone.
    """
    waiting = list(jobs.items())
    running = [_Worker(number, workers, devices, work) for number in range(min(workers, len(jobs)))]
    try:
        while waiting or any(worker.job for worker in running):
            for number, worker in enumerate(running):
                # One that died with a job is for `collect` to tell of first.
                if worker.job is None and not worker.process.is_alive():
                    running[number] = worker = _Worker(worker.number, workers, devices, work)
                if worker.job is None and waiting:
                    worker.start(*waiting.pop(0))
            busy = [worker for worker in running if worker.job]
            wait([part for worker in busy for part in (worker.pipe, worker.process.sentinel)])
            yield from (outcome for worker in busy if (outcome := worker.collect()))
    finally:
        for worker in running:
            worker.process.kill()
            worker.process.join()


class _Worker:
    """One process, and the job it has."""

    def __init__(self, number: int, workers: int, devices: Sequence[str], work: Callable[[Any], None]) -> None:
        self.number = number
        self.job: str | None = None
        self.pipe, theirs = _SPAWN.Pipe()
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        share = cores[number::workers] or cores
        device = devices[number % len(devices)] if devices else None
        self.process = _SPAWN.Process(target=_serve, args=(theirs, work, share, device), daemon=True)
        self.process.start()
        theirs.close()

    def start(self, name: str, value: Any) -> None:
        self.job = name
        self.pipe.send(value)

    def collect(self) -> Outcome | None:
        """The outcome of its job, if that has ended."""
        if self.job is None:
            return None
        error: tuple[str, str] | None
        try:
            if not self.pipe.poll():
                if self.process.is_alive():
                    return None
                raise EOFError
            error = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            line = f"the process died (exit code {self.process.exitcode})"
            error = (line, line)
        name, self.job = self.job, None
        return Outcome(name, error)


def _serve(pipe: Connection, work: Callable[[Any], None], cores: list[int], device: str | None) -> None:
    """What a worker does, until its parent hangs up."""
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    elif cores:
        os.sched_setaffinity(0, cores)
    while True:
        try:
            value = pipe.recv()
        except EOFError:
            return
        try:
            work(value)
        except Exception as error:
            last = str(error).strip().splitlines()
            pipe.send((last[-1] if last else type(error).__name__, traceback.format_exc()))
        else:
            pipe.send(None)
