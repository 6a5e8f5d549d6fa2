"""Every test session is strict: no silent rank promotion, warnings are errors (see pyproject.toml)."""

import os

# Before the first use of jax: eight simulated devices, so that sharding is tested on a laptop too.
os.environ.setdefault("MPLBACKEND", "Agg")

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
