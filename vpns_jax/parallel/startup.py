"""What a process does once before it computes anything."""

import logging
import os

import jax

from vpns_jax import files

# Loggers of which only errors are shown.
SILENCED = ("absl", "orbax", "jax", "vpns_jax.data")


def prepare() -> None:
    """Turns on the cache of compiled programs, and silences the log messages of libraries."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(files.cache_directory() / "compiled"))
    # Small programs, too: a run has a hundred of them, and compiling them takes three seconds of every start.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    # Selection on several devices has a partitioning rule in Python. Its address differs from run to run, and would
    # otherwise be a part of the cache's key.
    jax.config.update("jax_remove_custom_partitioning_ptr_from_cache_key", True)
    for name in SILENCED:
        logging.getLogger(name).setLevel(logging.ERROR)
