"""Compiles for chips that this machine does not have: a slice of TPUs ("v5e:4x4") or GPUs of one machine ("h200:8").

TPUs need libtpu (`pip install "jax[tpu]"`), and GPUs need JAX's CUDA plugin (`pip install "jax[cuda13]"`), both of the
same version as jaxlib.
"""

import importlib.util
import os
from typing import Any

import jax
from jax.experimental import topologies

GPU = "h200"
# XLA's description of the GPU, filled in from NVIDIA's data sheet.
_H200 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000 device_memory_size: 150000000000 l2_cache_size: 52428800
}
platform_name: "CUDA"
device_description_str: "NVIDIA H200"
dnn_version_info { major: 9 minor: 8 }
"""


def missing(topology: str) -> str | None:
    """The command that installs the compiler for a topology; None if it is installed."""
    if _is_gpu(topology):
        return None if importlib.util.find_spec("jax_plugins") else 'pip install "jax[cuda13]"'
    here = os.environ.get("TPU_LIBRARY_PATH") or importlib.util.find_spec("libtpu")
    return None if here else 'pip install "jax[tpu]"'


def described(topology: str) -> list[jax.Device]:
    """The devices of a topology such as "v5e:4x4" or "h200:8"."""
    if _is_gpu(topology):
        count = topology.partition(":")[2] or "1"
        description = topologies.get_topology_desc("", "cuda", target_config=_H200, topology=f"1x1x{count}")
        return list(description.devices)
    # Otherwise libtpu would look for these facts on a machine with TPUs.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    # Several compilers may run at the same time, unlike several users of a chip.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    return list(topologies.get_topology_desc(topology, "tpu").devices)


def options(topology: str, effort: float) -> dict[str, Any]:
    """Compiler options. `effort` is for TPUs; for GPUs, autotuning is turned off, because it needs a GPU."""
    if _is_gpu(topology):
        return {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
    return {"exec_time_optimization_effort": effort}


def _is_gpu(topology: str) -> bool:
    return topology.partition(":")[0] == GPU
