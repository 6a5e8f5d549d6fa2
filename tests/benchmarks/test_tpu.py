"""What is read from a compiled step, against programs whose communication is known."""

import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import tpu
from vpns_jax import sharding

# As the compiler for TPUs writes it: a collective taken apart says its channel twice, and a reduction that is scattered
# is a computation of its own.
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
ENTRY %main (p: bf16[8,4]) -> f32[] {
  %ar.4 = f32[]{:T(128)} all-reduce(%x), channel_id=9, to_apply=%add
  %cp.5 = (s32[4]{0}, s32[4]{0}) collective-permute-start(%y), channel_id=10
}
"""


def test_communication_taken_apart_counts_once():
    assert tpu.communication(TAKEN_APART) == {
        "all-gather": 2 * 8 * 16,
        "reduce-scatter": 2 * 8 * 16 + 32,
        "all-reduce": 4,
        "collective-permute": 2 * 4 * 4,
    }


def test_a_layer_on_eight_devices_gathers_its_kernel_and_sums_its_gradient():
    """Compiled for CPUs, whose partitioner is the same."""
    mesh = sharding.make_mesh(16, data=1, fsdp=8)
    images, split = (NamedSharding(mesh, spec) for spec in (sharding.BATCH, PartitionSpec(None, "fsdp")))
    x = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=images)
    kernel = jax.ShapeDtypeStruct((32, 64), jnp.float32, sharding=split)

    def loss(kernel, x):
        return jnp.sum(jnp.sin(x @ jax.lax.with_sharding_constraint(kernel, PartitionSpec())))

    with jax.set_mesh(mesh):
        compiled = jax.jit(jax.grad(loss), out_shardings=PartitionSpec()).lower(kernel, x).compile()
    assert tpu.communication(compiled.as_text()) == {"all-gather": 4 * 32 * 64, "all-reduce": 4 * 32 * 64}


def test_nothing_is_sent_on_one_device():
    assert not tpu.communication(jax.jit(jnp.sum).lower(jnp.ones(8)).compile().as_text())


def test_without_the_compiler_nothing_is_begun(monkeypatch, capsys):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(SystemExit):
        tpu.main([])
    assert 'libtpu is not installed; pip install "jax[tpu]"' in capsys.readouterr().err
