"""Backbones in Flax Linen, with their pretrained weights; importable alone, usable in any training loop."""

from vpns_jax.models.coupling import channels
from vpns_jax.models.formats import save_safetensors
from vpns_jax.models.head import HEAD, check_head, covers_head
from vpns_jax.models.initializing import init, new_head
from vpns_jax.models.loading import (
    Pretrained,
    check_layout,
    export,
    load_pretrained,
    read_pretrained,
)
from vpns_jax.models.own import OwnModel, check_option_names
from vpns_jax.models.own_network import check_call
from vpns_jax.models.preprocessing import Normalization, check_normalization, find_normalization
from vpns_jax.models.prunable import prunable
from vpns_jax.models.registry import (
    accepted_names,
    create,
    default_source,
    entry,
    is_own,
    names,
    normalisation,
    normalization,
    options,
    own_code,
    own_weights,
    timm_name,
)
from vpns_jax.models.shrinking import Shrunk, shrink
from vpns_jax.models.tracing import trace_channels
from vpns_jax.models.wiring import Channels, Reader, Writer

__all__ = [
    "HEAD",
    "Channels",
    "Normalization",
    "OwnModel",
    "Pretrained",
    "Reader",
    "Shrunk",
    "Writer",
    "accepted_names",
    "channels",
    "check_call",
    "check_head",
    "check_layout",
    "check_normalization",
    "check_option_names",
    "covers_head",
    "create",
    "default_source",
    "entry",
    "export",
    "find_normalization",
    "init",
    "is_own",
    "load_pretrained",
    "names",
    "new_head",
    "normalisation",
    "normalization",
    "options",
    "own_code",
    "own_weights",
    "prunable",
    "read_pretrained",
    "save_safetensors",
    "shrink",
    "timm_name",
    "trace_channels",
]
