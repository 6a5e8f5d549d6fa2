"""The first step of a fresh process, without compiled programs and with those that the first one left."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from benchmarks.accelerator.rows import Row, tried
from benchmarks.accelerator.running import ROOT

_FIRST_STEP = """
import dataclasses, time
begin = time.perf_counter()
from benchmarks import step
from benchmarks.accelerator import sizes
import jax
from vpns_jax.parallel import startup
startup.prepare()
jax.devices()
imported = time.perf_counter()
chosen = sizes.of("{model}", "bfloat16", tiny={tiny})
variables = jax.block_until_ready(step.make_variables(chosen.model, chosen.image_size))
made = time.perf_counter()
case = step.Case("prune (VPNs)", variables, **dataclasses.asdict(chosen))
compiled = time.perf_counter()
jax.block_until_ready(case())
done = time.perf_counter()
print(imported - begin, made - imported, compiled - made, done - compiled)
"""
_COLUMNS = ("imports and device, s", "weights, s", "trace and compile, s", "first step, s")


def rows(*, tiny: bool, model: str) -> Iterator[Row]:
    """The part."""
    with tempfile.TemporaryDirectory() as cache:
        for start in ("first", "again"):
            yield tried(f"prune (VPNs), {model}", {"start": start}, lambda: _seconds(model, cache, tiny=tiny))


def _seconds(model: str, cache: str, *, tiny: bool) -> dict[str, float]:
    code = _FIRST_STEP.format(model=model, tiny=tiny)
    begin = time.perf_counter()
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    total = time.perf_counter() - begin
    parts = map(float, told.stdout.splitlines()[-1].split())
    return {"all, s": total, **dict(zip(_COLUMNS, parts, strict=True))}
