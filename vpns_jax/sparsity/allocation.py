"""Allocation: which density each layer gets, where each layer has a threshold of its own."""

import math
from collections.abc import Callable, Sequence

# The shapes of one layer's kernels: several where kernels are pruned together.
KernelShapes = Sequence[tuple[int, ...]]


def uniform(layers: Sequence[KernelShapes], density: float) -> list[float]:
    """Gives every layer `density`, as HYDRA's own code does (arXiv 2002.10509)."""
    return [density] * len(layers)


def erk(layers: Sequence[KernelShapes], density: float) -> list[float]:
    """Erdos-Renyi-Kernel (RigL, Evci et al. 2020, arXiv 1911.11134): large layers get sparser than small ones.

    Layer l has h * w * in * out weights and keeps e * d_l of them, with d_l = h + w + in + out (dense: in + out). The
    factor e is chosen so that `density` of all weights are kept. A layer that would keep more weights than it has
    stays dense, and e is computed again for the others, until no such layer is left.

    Args:
      layers: the kernel shapes of each layer.
      density: share of all weights kept, in (0, 1].

    Returns:
      Each layer's density, in (0, 1]. Their mean, weighted by the layers' sizes, is `density`.
    """
    sizes = [sum(math.prod(shape) for shape in layer) for layer in layers]
    dims = [sum(sum(shape) for shape in layer) for layer in layers]
    dense: set[int] = set()
    while True:
        rest = [i for i in range(len(layers)) if i not in dense]
        budget = density * sum(sizes) - sum(sizes[i] for i in dense)
        scale = budget / sum(dims[i] for i in rest) if rest else 0.0
        full = {i for i in rest if scale * dims[i] >= sizes[i]}
        if not full:
            return [1.0 if i in dense else scale * dims[i] / sizes[i] for i in range(len(layers))]
        dense |= full


PER_LAYER: dict[str, Callable[[Sequence[KernelShapes], float], list[float]]] = {"uniform": uniform, "erk": erk}
# "global" is one threshold for all layers.
ALLOCATIONS = ("global", *PER_LAYER)
