"""Memory and communication of an iteration, as compiled for TPUs and GPUs; no such chip is needed.

    pip install "jax[tpu]"
    python -m benchmarks.compiled --topology v5e:4x4 --fsdp 4 --model vit_b16
    pip install "jax[cuda13]"
    python -m benchmarks.compiled --topology h200:8 --fsdp 4 --model vit_b16 --steps selection "prune (VPNs)"

Nothing is run: the compiler only gets a description of the chips, see `benchmarks.chips`. For TPUs it takes minutes for
each step. For GPUs it cannot autotune, so it may choose other algorithms for convolutions and matrix products than on a
machine with GPUs.
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
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import chips, measure
from benchmarks.selection import prunable_shapes
from benchmarks.step import CASES, OWN_LOOP, iteration, make_variables, memory, start
from vpns_jax import models
from vpns_jax.parallel import sharding
from vpns_jax.sparsity import Bits, selection
from vpns_jax.training.passes import Stage
from vpns_jax.training.state import TrainState

PyTree = Any

_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "s32": 32, "u32": 32, "u8": 8, "s8": 8}
_COLLECTIVE = re.compile(r" = (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(-start)?\(")
SELECTION = "selection"
_ARRAY = re.compile(rf"\b({'|'.join(_BITS)})\[([\d,]*)\]")


def compile_step(name: str, mesh: Mesh, *, model: str, image_size: int, batch: int, dtype: str, options: Any) -> Any:
    """Compiles a step for a mesh, without making arrays.

    Args:
      name: a name in `benchmarks.step.CASES`.
      mesh: the mesh.
      model: the network's name.
      image_size: side of the images in pixels.
      batch: images in a batch, over all devices.
      dtype: the computation's dtype.
      options: the compiler's options.

    Returns:
      The compiled step.
    """
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
    """Compiles the search for the threshold of a network's scores for a mesh.

    Args:
      mesh: the mesh.
      model: the network's name.
      options: the compiler's options.

    Returns:
      The compiled search.
    """
    scores = [_parameter(jax.ShapeDtypeStruct(shape, jnp.float32), mesh) for shape in prunable_shapes(model)]
    k = _stand_in(jax.ShapeDtypeStruct((), jnp.int32), mesh, sharding.REPLICATED)
    with jax.set_mesh(mesh):
        return selection.kth_smallest_key.lower(scores, k).compile(compiler_options=options)


def compile_update(name: str, mesh: Mesh, *, model: str, image_size: int, options: Any) -> Any:
    """Compiles the update of a network's weights for a mesh, from given gradients.

    Args:
      name: a name in `benchmarks.step.OWN_LOOP`.
      mesh: the mesh.
      model: the network's name.
      image_size: side of the images in pixels.
      options: the compiler's options.

    Returns:
      The compiled update.
    """

    def begin() -> tuple[PyTree, PyTree]:
        params = make_variables(model, image_size)["params"]
        return params, OWN_LOOP[name](params).init(params)

    def update(gradients: PyTree, params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        updates, state = OWN_LOOP[name](params).update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    now = jax.tree.map(lambda x: _parameter(x, mesh), jax.eval_shape(begin), is_leaf=lambda x: isinstance(x, Bits))
    where = jax.tree.map(lambda x: x.sharding, now)
    with jax.set_mesh(mesh):
        lowered = jax.jit(update, donate_argnums=(1, 2), out_shardings=where).lower(now[0], *now)
        return lowered.compile(compiler_options=options)


def _parameter(x: Any, mesh: Mesh) -> Any:
    if isinstance(x, Bits):
        # Split as the weights: the axis that is packed is none that is split.
        split = sharding.partition(x.shape, mesh.shape[sharding.FSDP_AXIS])
        return dataclasses.replace(x, bytes=_stand_in(x.bytes, mesh, split))
    return _stand_in(x, mesh, sharding.partition(x.shape, mesh.shape[sharding.FSDP_AXIS]))


def _stand_in(x: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))


def _step(stage: Stage, state: TrainState, *rest: Any) -> tuple[TrainState, Any]:
    state, metrics = iteration(stage, state, *rest)
    return sharding.split_parameters(state), metrics


def communication(text: str) -> Counter[str]:
    """Bytes that a compiled step sends, by the name of the collective operation.

    Args:
      text: the optimized HLO.

    Returns:
      The bytes of the whole arrays. An asynchronous collective, which has several instructions, counts once.
    """
    sent: Counter[str] = Counter()
    seen = set()
    for computation, line in _lines(text):
        matched = _COLLECTIVE.search(line)
        if not matched:
            continue
        arrays, name, begun = matched.groups()
        # TPUs compute a reduce-scatter in such a computation; many of them may share a channel.
        scatters = "all-reduce-scatter" in computation
        channel = re.search(r"channel_id=(\d+)", line)
        collective = computation if scatters else channel.group() if channel else line
        if collective in seen:
            continue
        seen.add(collective)
        sizes = [
            _BITS[dtype] // 8 * math.prod(map(int, filter(None, shape.split(","))))
            for dtype, shape in _ARRAY.findall(arrays)
        ]
        if begun and name != "all-reduce":
            # The line lists inputs and outputs: either parts and then whole arrays, or the reverse.
            half = len(sizes) // 2
            sizes = max(sizes[:half], sizes[half:], key=sum)
        sent["reduce-scatter" if scatters else name] += sum(sizes)
    return sent


def kernels_of_loops(text: str) -> int:
    """The number of fusions in the bodies of a compiled program's loops. On GPUs, each fusion is a kernel."""
    bodies = set(re.findall(r"body=(%[\w.-]+)", text))
    return sum(head.split(" ")[0] in bodies and " fusion(" in line for head, line in _lines(text))


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Each line with the first line of its computation."""
    computation = ""
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            computation = line
        yield computation, line


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device: a step's arguments, which it updates in place, and its temporary memory."""

    kept: int
    temporary: int

    @classmethod
    def of(cls, compiled: Any) -> "Memory":
        """The memory of a compiled step, as XLA reports it."""
        kept = compiled.memory_analysis().argument_size_in_bytes
        return cls(kept, memory(compiled) - kept)


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark, prints a table and, with --json, writes a file."""
    # JAX itself runs on the CPU; the compiler for the chips is called explicitly.
    jax.config.update("jax_platforms", "cpu")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiled", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--topology", default="v5e:2x2", help="TPUs, or h200:1, h200:8 (default: %(default)s)")
    parser.add_argument("--data", type=int, default=-1)
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--model", choices=models.accepted_names(), default="resnet18")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256, help="over all chips (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--steps", nargs="+", choices=(SELECTION, *CASES, *OWN_LOOP), default=["dense", "prune (VPNs)"])
    parser.add_argument(
        "--effort", type=float, default=0.0, help="-1 compiles for TPUs ten times as fast, with a worse result"
    )
    parser.add_argument("--json")
    chosen = parser.parse_args(arguments)
    if install := chips.missing(chosen.topology):
        parser.error(f"there is no compiler for {chosen.topology}; {install}")
    devices = chips.described(chosen.topology)
    # The mesh may use only some of the chips.
    count = len(devices) if chosen.data == -1 else chosen.data * chosen.fsdp
    mesh = sharding.make_mesh(chosen.batch, devices[:count], data=chosen.data, fsdp=chosen.fsdp)
    options = chips.options(chosen.topology, chosen.effort)
    sizes = {key: getattr(chosen, key) for key in ("model", "image_size", "batch", "dtype")}

    def compiled(name: str) -> Any:
        if name == SELECTION:
            return compile_selection(mesh, model=chosen.model, options=options)
        if name in OWN_LOOP:
            return compile_update(name, mesh, model=chosen.model, image_size=chosen.image_size, options=options)
        return compile_step(name, mesh, **sizes, options=options)

    rows = [row(name, compiled(name)) for name in chosen.steps]
    print(measure.table(rows))
    print({**measure.facts(), "compiled for": chosen.topology, "mesh": dict(mesh.shape)})
    if chosen.json:
        measure.write_json(chosen.json, "compiled", rows)


def row(name: str, compiled: Any) -> dict[str, Any]:
    """A row of the table: the numbers of one device, in MB."""
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
