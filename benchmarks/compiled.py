"""What the compilers for TPUs and GPUs make of an iteration of each stage: memory and communication, without a chip.

    pip install "jax[tpu]"
    python -m benchmarks.compiled --topology v5e:4x4 --fsdp 4 --model vit_b16
    pip install "jax[cuda13]"
    python -m benchmarks.compiled --topology h200:8 --fsdp 4 --model vit_b16 --steps selection "prune (VPNs)"

Nothing is run: a topology is only described, see `benchmarks.chips`. For TPUs it takes minutes a step. Of GPUs nothing
can be tried out, so that algorithms of convolutions and products may be others than on a machine that has one.
"""

import argparse
import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import chips, measure
from benchmarks.selection import prunable_shapes
from benchmarks.step import CASES, iteration, make_variables, start
from vpns_jax import models
from vpns_jax.parallel import sharding
from vpns_jax.sparsity import selection
from vpns_jax.training.passes import Stage
from vpns_jax.training.state import TrainState

PyTree = Any

_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "s32": 32, "u32": 32, "u8": 8, "s8": 8}
_COLLECTIVE = re.compile(r" = (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(-start)?\(")
SELECTION = "selection"
_ARRAY = re.compile(rf"\b({'|'.join(_BITS)})\[([\d,]*)\]")


def compile_step(name: str, mesh: Mesh, *, model: str, image_size: int, batch: int, dtype: str, options: Any) -> Any:
    """The step of `benchmarks.step.CASES` that has that name, compiled for the mesh; no array is made."""
    stages = []

    def begin() -> tuple[PyTree, PyTree]:
        variables = make_variables(model, image_size)
        stage, state = start(name, variables, model=model, image_size=image_size, batch=batch, dtype=dtype)
        stages.append(stage)
        return dataclasses.replace(state, frozen={}), state.frozen

    state, frozen = jax.tree.map(lambda x: _parameter(x, mesh), jax.eval_shape(begin))
    (stage,) = stages
    images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    batches = ((_stand_in(images, mesh, sharding.BATCH), _stand_in(labels, mesh, sharding.BATCH)),) * len(stage.passes)
    key = _stand_in(jax.eval_shape(jax.random.key, 0), mesh, sharding.REPLICATED)
    with jax.set_mesh(mesh):
        lowered = jax.jit(_step, static_argnums=0, donate_argnums=1).lower(stage, state, frozen, batches, key)
        return lowered.compile(compiler_options=options)


def compile_selection(mesh: Mesh, *, model: str, options: Any) -> Any:
    """The search for the threshold among a network's scores, compiled for the mesh."""
    scores = [_parameter(jax.ShapeDtypeStruct(shape, jnp.float32), mesh) for shape in prunable_shapes(model)]
    k = _stand_in(jax.ShapeDtypeStruct((), jnp.int32), mesh, sharding.REPLICATED)
    with jax.set_mesh(mesh):
        return selection.kth_smallest_key.lower(scores, k).compile(compiler_options=options)


def _parameter(x: Any, mesh: Mesh) -> Any:
    return _stand_in(x, mesh, sharding.partition(x.shape, mesh.shape[sharding.FSDP_AXIS]))


def _stand_in(x: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))


def _step(stage: Stage, state: TrainState, *rest: Any) -> tuple[TrainState, Any]:
    state, metrics = iteration(stage, state, *rest)
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
        if not matched:
            continue
        arrays, name, begun = matched.groups()
        # What TPUs have for a reduce-scatter; many of them may go by one channel.
        scatters = "all-reduce-scatter" in computation
        channel = re.search(r"channel_id=(\d+)", line)
        one = computation if scatters else channel.group() if channel else line
        if one in seen:
            continue
        seen.add(one)
        sizes = [
            _BITS[dtype] // 8 * math.prod(map(int, filter(None, shape.split(","))))
            for dtype, shape in _ARRAY.findall(arrays)
        ]
        if begun and name != "all-reduce":
            # It names what it takes, and then what it gives: parts and whole, or whole and parts.
            half = len(sizes) // 2
            sizes = max(sizes[:half], sizes[half:], key=sum)
        found["reduce-scatter" if scatters else name] += sum(sizes)
    return found


def kernels_of_loops(text: str) -> int:
    """How many fusions the bodies of a compiled program's loops hold: on GPUs each is a kernel."""
    bodies = set(re.findall(r"body=(%[\w.-]+)", text))
    return sum(head.split(" ")[0] in bodies and " fusion(" in line for head, line in _lines(text))


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Each line with the head of the computation that it is in."""
    computation = ""
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            computation = line
        yield computation, line


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device: what a step is given, which it updates in place, and what is temporary."""

    kept: int
    temporary: int

    @classmethod
    def of(cls, compiled: Any) -> "Memory":
        """By XLA's own account."""
        found = compiled.memory_analysis()
        own = found.output_size_in_bytes - found.alias_size_in_bytes
        return cls(found.argument_size_in_bytes, own + found.temp_size_in_bytes)


def main(arguments: list[str] | None = None) -> None:
    """Prints a table and, if asked to, writes JSON."""
    # The compiler is called by name; a chip need not answer.
    jax.config.update("jax_platforms", "cpu")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiled", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--topology", default="v5e:2x2", help="TPUs, or h200:1, h200:8 (default: %(default)s)")
    parser.add_argument("--data", type=int, default=-1)
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--model", choices=models.names(), default="resnet18")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256, help="over all chips (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--steps", nargs="+", choices=(SELECTION, *CASES), default=["dense", "prune (VPNs)"])
    parser.add_argument(
        "--effort", type=float, default=0.0, help="-1 compiles for TPUs ten times as quickly, and worse"
    )
    parser.add_argument("--json")
    chosen = parser.parse_args(arguments)
    if install := chips.missing(chosen.topology):
        parser.error(f"there is no compiler for {chosen.topology}; {install}")
    devices = chips.described(chosen.topology)
    # Of the chips no more than are asked for.
    count = len(devices) if chosen.data == -1 else chosen.data * chosen.fsdp
    mesh = sharding.make_mesh(chosen.batch, devices[:count], data=chosen.data, fsdp=chosen.fsdp)
    options = chips.options(chosen.topology, chosen.effort)
    sizes = {key: getattr(chosen, key) for key in ("model", "image_size", "batch", "dtype")}

    def compiled(name: str) -> Any:
        if name == SELECTION:
            return compile_selection(mesh, model=chosen.model, options=options)
        return compile_step(name, mesh, **sizes, options=options)

    rows = [row(name, compiled(name)) for name in chosen.steps]
    print(measure.table(rows))
    print({**measure.facts(), "compiled for": chosen.topology, "mesh": dict(mesh.shape)})
    if chosen.json:
        measure.write_json(chosen.json, "compiled", rows)


def row(name: str, compiled: Any) -> dict[str, Any]:
    """A step's numbers: of one device, in MB."""
    text = compiled.as_text()
    memory, sent = Memory.of(compiled), communication(text)
    kinds = ("all-gather", "reduce-scatter", "all-reduce")
    others = sum(sent.values()) - sum(sent[kind] for kind in kinds)
    return {
        "step": name,
        "kept": memory.kept / 1e6,
        "temporary": memory.temporary / 1e6,
        **{kind: sent[kind] / 1e6 for kind in kinds},
        "others": others / 1e6,
        "kernels a pass": kernels_of_loops(text) if name == SELECTION else None,
    }


if __name__ == "__main__":
    main()
