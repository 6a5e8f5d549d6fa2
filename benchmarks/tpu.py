"""What the compiler for TPUs makes of an iteration of each stage: its memory and communication, on chips not at hand.

    pip install "jax[tpu]"
    python -m benchmarks.tpu --topology v5e:4x4 --fsdp 4 --model vit_b16 --batch 256

Nothing is run, and no TPU is needed: libtpu compiles for a topology that is only described. It takes minutes a step.
"""

import argparse
import dataclasses
import importlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import measure
from benchmarks.step import CASES, make_variables, start
from vpns_jax import models, sharding
from vpns_jax.training import steps
from vpns_jax.training.loop import STEPS
from vpns_jax.training.state import TrainState

PyTree = Any

_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "s32": 32, "u32": 32, "u8": 8, "s8": 8}
_COLLECTIVE = re.compile(r" = (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
_ARRAY = re.compile(rf"\b({'|'.join(_BITS)})\[([\d,]*)\]")


def described(topology: str, *, data: int, fsdp: int, batch: int) -> Mesh:
    """A mesh of TPUs that are not there, such as "v5e:4x4"; of its chips no more than are asked for."""
    # There is no machine to ask what it is.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    # Compilers need not take turns, as users of chips must.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    chips = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    count = len(chips) if data == -1 else data * fsdp
    return sharding.make_mesh(batch, list(chips[:count]), data=data, fsdp=fsdp)


def compile_step(name: str, mesh: Mesh, *, model: str, image_size: int, batch: int, dtype: str, effort: float) -> Any:
    """The step of `benchmarks.step.CASES` that has that name, compiled for the mesh; no array is made."""
    tasks = []

    def begin() -> tuple[PyTree, PyTree]:
        variables = make_variables(model, image_size)
        task, state, fixed = start(name, variables, model=model, image_size=image_size, batch=batch, dtype=dtype)
        tasks.append(task)
        return state, fixed

    def stand_in(x: Any, spec: PartitionSpec) -> Any:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    def lie(x: Any) -> Any:
        return stand_in(x, sharding.partition(x.shape, mesh.shape[sharding.FSDP_AXIS]))

    state, fixed = jax.tree.map(lie, jax.eval_shape(begin))
    (task,) = tasks
    images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    batches = ((stand_in(images, sharding.BATCH), stand_in(labels, sharding.BATCH)),) * len(task.passes)
    key = stand_in(jax.eval_shape(jax.random.key, 0), sharding.WHOLE)
    with jax.set_mesh(mesh):
        lowered = jax.jit(_step, static_argnums=0, donate_argnums=1).lower(task, state, fixed, batches, key)
        # A float, though JAX's types do not say so.
        options: dict[str, Any] = {"exec_time_optimization_effort": effort}
        return lowered.compile(compiler_options=options)


def _step(task: steps.Task, state: TrainState, *rest: Any) -> tuple[TrainState, Any]:
    state, metrics = STEPS[task.stage](task, state, *rest)
    return sharding.split_parameters(state), metrics


def communication(text: str) -> Counter[str]:
    """Bytes of the whole arrays that a compiled step gathers, reduces and scatters, or reduces, by that name.

    Args:
      text: the optimized HLO. A collective that is taken apart, so as to run beside others, counts once.
    """
    found: Counter[str] = Counter()
    seen = set()
    for computation, line in _lines(text):
        matched = _COLLECTIVE.search(line)
        channel = re.search(r"channel_id=(\d+)", line)
        if not matched or (channel and channel.group(1) in seen):
            continue
        seen.add(channel.group(1) if channel else line)
        arrays, name = matched.groups()
        # What TPUs have for a reduce-scatter.
        scatters = "all-reduce-scatter" in computation
        found["reduce-scatter" if scatters else name] += sum(
            _BITS[dtype] // 8 * math.prod(map(int, filter(None, shape.split(","))))
            for dtype, shape in _ARRAY.findall(arrays)
        )
    return found


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Each line with the head of the computation that it is in."""
    computation = ""
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            computation = line
        yield computation, line


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device: what a step is given, which it updates in place, and what it needs besides."""

    kept: int
    besides: int

    @classmethod
    def of(cls, compiled: Any) -> "Memory":
        """By XLA's own account."""
        found = compiled.memory_analysis()
        own = found.output_size_in_bytes - found.alias_size_in_bytes
        return cls(found.argument_size_in_bytes, own + found.temp_size_in_bytes)


def main(arguments: list[str] | None = None) -> None:
    """Prints a table and, if asked to, writes JSON."""
    # The compiler is called by name; a TPU would not answer.
    jax.config.update("jax_platforms", "cpu")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--topology", default="v5e:2x2", help="TPU kind and its chips (default: %(default)s)")
    parser.add_argument("--data", type=int, default=-1)
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--model", choices=models.names(), default="resnet18")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256, help="over all chips (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--steps", nargs="+", choices=CASES, default=["dense", "prune (VPNs)"])
    parser.add_argument("--effort", type=float, default=0.0, help="-1 compiles ten times as quickly, and worse")
    parser.add_argument("--json")
    chosen = parser.parse_args(arguments)
    if not (os.environ.get("TPU_LIBRARY_PATH") or _installed("libtpu")):
        parser.error('libtpu is not installed; pip install "jax[tpu]"')
    mesh = described(chosen.topology, data=chosen.data, fsdp=chosen.fsdp, batch=chosen.batch)
    sizes = {key: getattr(chosen, key) for key in ("model", "image_size", "batch", "dtype", "effort")}
    rows = [row(name, compile_step(name, mesh, **sizes)) for name in chosen.steps]
    print(measure.table(rows))
    print({**measure.facts(), "compiled for": chosen.topology, "mesh": dict(mesh.shape)})
    if chosen.json:
        measure.write_json(chosen.json, "tpu", rows)


def _installed(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def row(name: str, compiled: Any) -> dict[str, Any]:
    """A step's numbers: of one device, in MB."""
    memory, sent = Memory.of(compiled), communication(compiled.as_text())
    kinds = ("all-gather", "reduce-scatter", "all-reduce")
    others = sum(sent.values()) - sum(sent[kind] for kind in kinds)
    return {
        "step": name,
        "kept": memory.kept / 1e6,
        "besides": memory.besides / 1e6,
        **{kind: sent[kind] / 1e6 for kind in kinds},
        "others": others / 1e6,
        "TFLOP": compiled.cost_analysis()["flops"] / 1e12,
    }


if __name__ == "__main__":
    main()
