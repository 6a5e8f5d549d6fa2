"""Where the time of a step goes: the longest kernels in a profile."""

import collections
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import selection, step
from benchmarks.accelerator import sizes
from benchmarks.accelerator.rows import Row
from vpns_jax import sparsity

CALLS, LONGEST = 3, 10


def rows(*, tiny: bool, model: str) -> Iterator[Row]:
    """The part."""
    chosen = sizes.of(model, "bfloat16", tiny=tiny)
    variables = step.make_variables(chosen.model, chosen.image_size)
    name = "prune (VPNs)"
    case = step.Case(name, variables, **dataclasses.asdict(chosen))
    yield from _longest(f"{name}, {model}, batch {chosen.batch}, bfloat16", case)
    scores = jax.device_put(selection.draw([(64, 64)] if tiny else selection.prunable_shapes(model)))
    mask = jax.jit(
        lambda scores: sparsity.prune_smallest({"scores": scores}, jnp.int32(sparsity.pruned_count(scores, 0.1)))
    )
    yield from _longest(f"the mask of {model}'s scores", lambda: mask(scores))


def _longest(caption: str, function: Callable[[], Any]) -> Iterator[Row]:
    """The kernels that take the longest in a call, and their share of all kernels' time."""
    jax.block_until_ready(function())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                jax.block_until_ready(function())
        (file,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(file))
    taken, started, facts = _kernels(profile)
    total = taken.total()
    for name, nanoseconds in taken.most_common(LONGEST):
        yield Row(
            caption,
            {
                "kernel": name[:80].replace("|", "/"),
                "calls": started[name] // CALLS,
                "ms": nanoseconds / CALLS / 1e6,
                "share, %": 100 * nanoseconds / total,
                "what it is": facts.get(name, "")[-120:].replace("|", "/"),
            },
        )
    count = sum(started.values()) // CALLS
    yield Row(caption, f"One call starts {count} kernels, which take {total / CALLS / 1e6:.3f} ms together.")


def _kernels(profile: Any) -> tuple[collections.Counter[str], collections.Counter[str], dict[str, str]]:
    """By kernel: nanoseconds, how often it was started, and the operation that it computes."""
    taken: collections.Counter[str] = collections.Counter()
    started: collections.Counter[str] = collections.Counter()
    facts: dict[str, str] = {}
    for event in _events(profile):
        taken[event.name] += int(event.duration_ns)
        started[event.name] += 1
        if event.name not in facts:
            told = dict(event.stats)
            facts[event.name] = str(told.get("name") or told.get("tf_op") or told.get("hlo_op") or "")
    return taken, started, facts


def _events(profile: Any) -> Iterator[Any]:
    """What ran on the accelerator's streams; on a CPU, what XLA's threads ran."""
    planes = list(profile.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    for plane in devices or planes:
        for line in plane.lines:
            if line.name.startswith("Stream" if devices else "tf_XLA"):
                yield from line.events
