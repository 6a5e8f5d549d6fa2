"""Backbones in Flax Linen, with their pretrained weights; importable alone, usable in any training loop."""

from vpns_jax.models.coupling import Coupled, coupled
from vpns_jax.models.formats import save_safetensors
from vpns_jax.models.head import HEAD
from vpns_jax.models.loading import export, load_pretrained, new_head
from vpns_jax.models.prunable import prunable
from vpns_jax.models.registry import create, default_source, names, normalisation, options

__all__ = [
    "HEAD",
    "Coupled",
    "coupled",
    "create",
    "default_source",
    "export",
    "load_pretrained",
    "names",
    "new_head",
    "normalisation",
    "options",
    "prunable",
    "save_safetensors",
]
