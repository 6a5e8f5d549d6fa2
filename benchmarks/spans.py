"""Where the seconds of a run go: spans of time, each of one part, and the seconds of a part without what lies inside.

    python -m benchmarks.spans FILE BEGAN --config=... --workdir=...

does what main.py does with these arguments, and writes the seconds to a JSON file. BEGAN is when the process was
started, in seconds since the epoch. It is a process of its own, because functions of the library stay wrapped.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.monitoring

# What JAX measures itself.
EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
}
PARTS = ("imports", "data", "tracing", "lowering", "compiling", "training", "figures", "writing")


class Span(NamedTuple):
    """A part, and when it began and ended, in seconds since the epoch."""

    part: str
    begin: float
    end: float


def exclusive(spans: Sequence[Span]) -> dict[str, float]:
    """Seconds of each part, without the spans that lie inside of its own.

    Args:
      spans: any two either lie one inside the other or do not overlap. Of two that do overlap in part, the later one
        counts as inside as far as the earlier one's end.

    Returns:
      Seconds by part.
    """
    seconds: dict[str, float] = defaultdict(float)
    around: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.begin, -span.end)):
        while around and around[-1].end <= span.begin:
            around.pop()
        if around:
            inside = min(span.end, around[-1].end) - span.begin
            seconds[around[-1].part] -= inside
        seconds[span.part] += span.end - span.begin
        around.append(span)
    return seconds


class Recorder:
    """Records the spans of this process.

    Attributes:
      spans: the spans so far.
    """

    def __init__(self) -> None:
        """Starts to listen to JAX."""
        self.spans: list[Span] = []
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **_: Any) -> None:
        if event in EVENTS:
            now = time.time()
            self.spans.append(Span(EVENTS[event], now - duration_secs, now))

    def wrap(self, part: str, owner: Any, name: str) -> list[Span]:
        """Records every call of a function.

        Args:
          part: the part that its time belongs to.
          owner: the module or class that has it.
          name: its name there.

        Returns:
          The spans of the calls so far, in a list that grows.
        """
        function, calls = getattr(owner, name), list[Span]()

        def timed(*arguments: Any, **options: Any) -> Any:
            begin = time.time()
            try:
                return function(*arguments, **options)
            finally:
                calls.append(Span(part, begin, time.time()))
                self.spans.append(calls[-1])

        setattr(owner, name, timed)
        return calls


def recorded(began: float, run: Callable[[], Any]) -> dict[str, float]:
    """Runs an experiment and tells where its time went.

    Args:
      began: when the process was started, in seconds since the epoch.
      run: runs it, by `vpns_jax.experiment.run`.

    Returns:
      Seconds by part, "training" being what no other part has; of "all"; and until the "first row" of the table.
    """
    # Imported here, so that this is seen as a part of the start.
    from vpns_jax import data, deploy
    from vpns_jax.experiment import pretraining, report, workdir
    from vpns_jax.experiment import run as experiment
    from vpns_jax.training.checkpoints import Checkpoints

    recorder = Recorder()
    recorder.wrap("data", experiment, "open_inputs")
    recorder.wrap("data", data, "materialize")
    recorder.wrap("figures", report, "draw_cell")
    recorder.wrap("figures", report, "report")
    for owner, name in ((Checkpoints, "save"), (deploy, "save"), (pretraining, "save")):
        recorder.wrap("writing", owner, name)
    rows = recorder.wrap("writing", workdir.Workdir, "write_cell")
    runs = recorder.wrap("training", experiment, "run")
    run()
    seconds = exclusive([Span("imports", began, runs[0].begin), *recorder.spans])
    return {**{part: seconds[part] for part in PARTS}, "all": runs[0].end - began, "first row": rows[0].end - began}


def main() -> None:
    """Runs what the command line says, and ends with the exit code of main.py if it fails."""
    from main import main as program

    file, began, *arguments = sys.argv[1:]
    # The library for configs looks here for the keys that are changed.
    sys.argv = ["main.py", *arguments]

    def run() -> None:
        code = program(sys.argv)
        if code:
            sys.exit(code)

    Path(file).write_text(json.dumps(recorded(float(began), run)))


if __name__ == "__main__":
    main()
