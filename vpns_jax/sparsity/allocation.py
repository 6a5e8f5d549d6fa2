"""How a density is shared out among layers, where each layer has a threshold of its own."""

import math
from collections.abc import Callable, Sequence

# One layer: the shapes of its kernels, more than one where they are pruned as one.
Layer = Sequence[tuple[int, ...]]


def uniform(layers: Sequence[Layer], density: float) -> list[float]:
    """Every layer gets `density`, as in HYDRA's own code (arXiv 2002.10509)."""
    return [density] * len(layers)


def erk(layers: Sequence[Layer], density: float) -> list[float]:
    """Erdos-Renyi-Kernel (RigL, Evci et al. 2020, arXiv 1911.11134): large layers get sparser than small ones.

    Layer l keeps e * d_l weights, d_l = h + w + in + out (dense: in + out), of its h * w * in * out; e is such that
    `density` of all weights are kept. A layer that would be given more than it has stays dense, and e is found anew
    for the others, until none is.

    Returns:
      Each layer's density, in (0, 1]; weighted with the layers' sizes their mean is `density`.
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


PER_LAYER: dict[str, Callable[[Sequence[Layer], float], list[float]]] = {"uniform": uniform, "erk": erk}
# "global" is one threshold for all layers.
ALLOCATIONS = ("global", *PER_LAYER)
