"""Finds the channels of any network in the program that JAX traces of it; nothing is compiled or computed."""

from vpns_jax.models.tracing.network import trace_channels, traced

__all__ = ["trace_channels", "traced"]
