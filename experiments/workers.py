"""Runs jobs in several processes. A job that raises or crashes its process stops no other job."""

import dataclasses
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

_SPAWN = multiprocessing.get_context("spawn")
# Seconds in which a process without a job must have ended.
_PATIENCE = 30


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one job ended.

    Attributes:
      name: the job's name.
      error: None if it succeeded; otherwise the last line of the error, and the whole traceback.
    """

    name: str
    error: tuple[str, str] | None


def run_all(
    jobs: dict[str, Any], work: Callable[[Any], None], *, workers: int, devices: Sequence[str]
) -> Iterator[Outcome]:
    """Calls `work` with the value of every job.

    Args:
      jobs: values by name; they must be picklable.
      work: an importable function, which is called in another process.
      workers: the most processes, which share the machine's cores if there are no `devices`.
      devices: CUDA_VISIBLE_DEVICES of each worker; empty to leave it alone.

    Yields:
      The outcome of each job, as it ends.
    """
    waiting = list(jobs.items())
    workers = min(workers, len(jobs))
    running = [_Worker(number, workers, devices, work) for number in range(workers)]
    try:
        while waiting or any(worker.job for worker in running):
            for number, worker in enumerate(running):
                # A worker that died during a job still has the job, until `collect` reports it.
                if worker.job is None and not worker.process.is_alive():
                    running[number] = worker = _Worker(worker.number, workers, devices, work)
                if worker.job is None and waiting:
                    worker.start(*waiting.pop(0))
            busy = [worker for worker in running if worker.job]
            wait([part for worker in busy for part in (worker.pipe, worker.process.sentinel)])
            yield from (outcome for worker in busy if (outcome := worker.collect()))
    finally:
        # All are told before the first is waited for.
        for worker in running:
            worker.close()
        for worker in running:
            worker.stop()


class _Worker:
    """One process and its current job."""

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

    def close(self) -> None:
        """Kills the process if it has a job. Without one it will end by itself, and give back what it holds."""
        self.pipe.close()
        if self.job is not None:
            self.process.kill()

    def stop(self) -> None:
        """Waits until the process has ended."""
        self.process.join(_PATIENCE)
        self.process.kill()
        self.process.join()

    def collect(self) -> Outcome | None:
        """The outcome of its job; None if the job has not ended."""
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
    """Works on jobs until the parent closes the pipe."""
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
