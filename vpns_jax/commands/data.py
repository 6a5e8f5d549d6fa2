"""Lists data sets, and prepares one; see `vpns_jax.data.prepare`."""

from vpns_jax.data.prepare import main

__all__ = ["main"]
