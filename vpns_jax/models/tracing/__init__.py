"""Finds the channels of any network in the program that JAX traces of it; nothing is compiled or computed."""

from vpns_jax.models.tracing.network import trace, traced

__all__ = ["trace", "traced"]
