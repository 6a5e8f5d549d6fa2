"""The sizes of what is measured: those of the paper on an accelerator, tiny ones in a rehearsal."""

import dataclasses
from typing import Any

from benchmarks.accelerator import machine
from benchmarks.vs_torch import Sizes
from vpns_jax.models import registry

# Networks of few layers, under the names of the real ones: a CPU compiles those for minutes.
_TINY: dict[str, dict[str, Any]] = {
    "resnet18": {"depths": (1, 0, 0, 0), "block": "basic", "width": 0.25},
    "resnet50": {"depths": (1, 0, 0, 0), "block": "bottleneck", "width": 0.25},
    "vgg16": {"stages": ((1, 8), (1, 8), (1, 8), (1, 8), (1, 8)), "batch_norm": False, "width": 0.125},
    "vit_b16": {"features": 64, "depth": 1, "patch": 16},
}
# Bytes that ViT-B/16's step takes for 256 images in bfloat16, with room for PyTorch's beside it.
_ENOUGH = 50e9


def of(model: str, dtype: str, *, tiny: bool) -> Sizes:
    """The sizes of a step: 224 px, and as many images as the memory suggests.

    Args:
      model: the network's name.
      dtype: the computation's dtype.
      tiny: whether to rehearse. Then the networks of this process are replaced by small ones.

    Returns:
      The sizes.
    """
    if tiny:
        for name, architecture in _TINY.items():
            registry.ENTRIES[name] = dataclasses.replace(registry.ENTRIES[name], architecture=architecture)
        return Sizes(model, 32, 4, dtype)
    most, memory = 256 if dtype == "bfloat16" else 128, machine.memory()
    if memory is None:
        return Sizes(model, 224, most, dtype)
    fitting = max(8, int(most * min(1.0, memory / _ENOUGH)))
    # A power of two.
    return Sizes(model, 224, 1 << (fitting.bit_length() - 1), dtype)
