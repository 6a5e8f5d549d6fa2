"""Communication and memory of compiled steps, for programs in which they are known."""

import dataclasses
import importlib.util
import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import compiled
from benchmarks.selection import prunable_shapes
from vpns_jax.models import registry
from vpns_jax.parallel import sharding

# The format of the compiler for TPUs: an asynchronous collective names its channel twice; a reduce-scatter is a
# separate computation, and several of them may share a channel.
TAKEN_APART = """
%async_collective_fusion.1 (p: bf16[8,4]) -> bf16[8,16] {
  %ag.1 = bf16[8,16]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=7, dimensions={1}
}
%fused.2 (p: bf16[8,4]) -> bf16[8,16] {
  %ag.2 = bf16[8,16]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=7, dimensions={1}
}
%all-reduce-scatter.3 (p: bf16[8,16]) -> bf16[8,4] {
  %ar.3 = (bf16[8,16]{1,0}, pred[32]{0}) all-reduce(%p, %q), channel_id=8, to_apply=%add
}
%all-reduce-scatter.4 (p: bf16[8,16]) -> bf16[8,4] {
  %ar.4 = bf16[8,16]{1,0} all-reduce(%p), channel_id=8, to_apply=%add
}
ENTRY %main (p: bf16[8,4]) -> f32[] {
  %ar.5 = f32[]{:T(128)} all-reduce(%x), channel_id=9, to_apply=%add
  %cp.6 = (s32[4]{0}, s32[4]{0}) collective-permute-start(%y), channel_id=10
}
"""


def test_communication_taken_apart_counts_once():
    assert compiled.communication(TAKEN_APART) == {
        "all-gather": 2 * 8 * 16,
        "reduce-scatter": 2 * 8 * 16 + 32 + 2 * 8 * 16,
        "all-reduce": 4,
        "collective-permute": 4 * 4,
    }


def test_what_gpus_begin_names_parts_and_whole():
    text = """
ENTRY %main (p: f32[8,4]) -> f32[] {
  %ag = ((f32[8,4]{1,0}, bf16[2]{0}), (f32[8,16]{1,0}, bf16[8]{0})) all-gather-start(%p, %q), channel_id=1
  %ag.done = (f32[8,16]{1,0}, bf16[8]{0}) all-gather-done(%ag)
  %rs = ((bf16[8,16]{1,0}), bf16[8,4]{1,0}) reduce-scatter-start(%r), channel_id=2
  %ar = (f32[3]{0}, f32[5]{0}) all-reduce-start(%x, %y), channel_id=3
}
"""
    assert compiled.communication(text) == {
        "all-gather": 4 * 8 * 16 + 2 * 8,
        "reduce-scatter": 2 * 8 * 16,
        "all-reduce": 4 * 8,
    }


def test_a_layer_on_eight_devices_gathers_its_kernel_and_sums_its_gradient():
    """Compiled for CPUs, which use the same partitioner."""
    mesh = sharding.make_mesh(16, data=1, fsdp=8)
    images, split = (NamedSharding(mesh, spec) for spec in (sharding.BATCH, PartitionSpec(None, "fsdp")))
    x = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=images)
    kernel = jax.ShapeDtypeStruct((32, 64), jnp.float32, sharding=split)

    def loss(kernel, x):
        return jnp.sum(jnp.sin(x @ jax.lax.with_sharding_constraint(kernel, PartitionSpec())))

    with jax.set_mesh(mesh):
        program = jax.jit(jax.grad(loss), out_shardings=PartitionSpec()).lower(kernel, x).compile()
    assert compiled.communication(program.as_text()) == {"all-gather": 4 * 32 * 64, "all-reduce": 4 * 32 * 64}


def test_nothing_is_sent_on_one_device():
    assert not compiled.communication(jax.jit(jnp.sum).lower(jnp.ones(8)).compile().as_text())


def test_kernels_are_those_of_loops():
    text = """
%body.1 (p: f32[8]) -> f32[8] {
  %a = f32[8]{0} fusion(%p), kind=kLoop, calls=%add
  %b = f32[8]{0} fusion(%a), kind=kInput, calls=%sum
  ROOT %c = f32[8]{0} copy(%b)
}
ENTRY %main (p: f32[8]) -> f32[8] {
  %d = f32[8]{0} fusion(%p), kind=kLoop, calls=%add
  ROOT %while = f32[8]{0} while(%d), condition=%condition.1, body=%body.1
}
"""
    assert compiled.kernels_of_loops(text) == 2


@pytest.mark.parametrize(
    ("topology", "package", "install"), [("v5e:2x2", "libtpu", "jax[tpu]"), ("h200:8", "jax_plugins", "jax[cuda13]")]
)
def test_without_the_compiler_nothing_is_begun(topology, package, install, monkeypatch, capsys):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(SystemExit):
        compiled.main(["--topology", topology])
    assert f'there is no compiler for {topology}; pip install "{install}"' in capsys.readouterr().err


@pytest.fixture
def shallow(monkeypatch):
    """Leaves the ViT one of its twelve blocks, which are alike."""
    entry = registry.ENTRIES["vit_ti32"]
    one_block = dataclasses.replace(entry, architecture=entry.architecture | {"depth": 1})
    monkeypatch.setitem(registry.ENTRIES, "vit_ti32", one_block)


@pytest.mark.slow
@pytest.mark.usefixtures("shallow")
def test_a_step_is_compiled_without_arrays():
    """Compiled for CPUs, because other compilers are not installed."""
    mesh = sharding.make_mesh(8, data=2, fsdp=4)
    program = compiled.compile_step(
        "prune (VPNs)", mesh, model="vit_ti32", image_size=32, batch=8, dtype="float32", options={}
    )
    row = compiled.row("prune (VPNs)", program)
    large = [math.prod(shape) for shape in prunable_shapes("vit_ti32") if math.prod(shape) >= sharding.LARGE]
    # Each masked kernel is gathered once; the source network's head is not among them.
    assert row["all-gather"] == pytest.approx(4 * (sum(large) - 192 * 1000) / 1e6, rel=1e-3)
    assert row["others"] == 0


@pytest.mark.slow
@pytest.mark.usefixtures("shallow")
def test_selection_sends_counts():
    row = compiled.row(
        "selection", compiled.compile_selection(sharding.make_mesh(8, fsdp=8), model="vit_ti32", options={})
    )
    assert 0 < row["all-reduce"] < 1e-3
    assert row["all-gather"] == row["reduce-scatter"] == row["others"] == 0


@pytest.mark.slow
@pytest.mark.usefixtures("shallow")
def test_an_update_in_which_a_mask_moves_sends_counts():
    program = compiled.compile_update(
        "gradual magnitude, between moves", sharding.make_mesh(8, fsdp=8), model="vit_ti32", image_size=32, options={}
    )
    row = compiled.row("update", program)
    assert 0 < row["all-reduce"] < 1e-3
    assert row["all-gather"] == row["reduce-scatter"] == row["others"] == 0
