"""What a process does once before it computes anything."""

import importlib.metadata
import logging
import os
from importlib import util

import jax

from vpns_jax import files

# Loggers of which only errors are shown.
SILENCED = ("absl", "orbax", "jax", "vpns_jax.data")


def prepare(*, fast_compile: bool = False) -> None:
    """Turns on the cache of compiled programs, and silences the log messages of libraries.

    Args:
      fast_compile: whether programs for CPUs are optimized less; see `compile_fast`.

    Raises:
      UserError: $VPNS_JAX_CACHE is no valid path.
    """
    if fast_compile:
        compile_fast()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(files.cache_directory() / "compiled"))
    # Small programs, too: a run has a hundred of them, and compiling them takes three seconds of every start.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    # Selection on several devices has a partitioning rule in Python. Its address differs from run to run, and would
    # otherwise be a part of the cache's key.
    jax.config.update("jax_remove_custom_partitioning_ptr_from_cache_key", True)
    for name in SILENCED:
        logging.getLogger(name).setLevel(logging.ERROR)


def compile_fast() -> None:
    """Lets XLA optimize programs less if there are only CPUs. It must come before JAX's first computation.

    The quickstart's programs then compile in 52 instead of 87 s and run as fast. Steps of a full ResNet-18 run up to a
    fifth slower (docs/performance.md). What is in $XLA_FLAGS already has precedence.
    """
    if not _only_cpus():
        return
    flags = ["--xla_backend_optimization_level=1"]
    # XLA ends the process if it does not know a flag. jaxlib 0.12 does not know this one, and compiles faster.
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        flags.append("--xla_cpu_use_fusion_emitters=false")
    present = os.environ.get("XLA_FLAGS", "").split()
    names = {flag.partition("=")[0] for flag in present}
    added = [flag for flag in flags if flag.partition("=")[0] not in names]
    os.environ["XLA_FLAGS"] = " ".join([*present, *added])


def _only_cpus() -> bool:
    """Whether JAX will run on CPUs. To ask JAX would start its devices, which read the flags."""
    chosen = jax.config.values["jax_platforms"]
    if chosen:
        return bool(chosen == "cpu")
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and not any(util.find_spec(name) for name in ("jax_plugins", "libtpu"))
