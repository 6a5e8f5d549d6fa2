"""How far masks agree on which weights to keep, beside what chance would give."""

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mask:
    """The mask of one cell.

    Attributes:
      bits: by layer uint8, eight weights a byte as `np.packbits` has them; the last byte's spare bits are zero.
      sizes: by layer, the number of its weights.
    """

    method: str
    density: float
    seed: int
    bits: Mapping[str, np.ndarray]
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Overlap:
    """Jaccard indices of two masks, in [0, 1]: the weights that both keep over those that either keeps.

    Attributes:
      found: of the two masks.
      chance: of two that keep as many weights anywhere (the expected intersection over the union that goes with it).
      chance_by_layer: of two that keep as many in each layer. What lies above this is agreement about weights, and
        not about layers alone.
    """

    found: float
    chance: float
    chance_by_layer: float


@dataclass(frozen=True)
class Comparison:
    """Two methods at one density, seed by seed; or one method with itself, between seeds. Means over `pairs`."""

    density: float
    methods: tuple[str, str]
    pairs: int
    overlap: Overlap


def compare(one: Mask, other: Mask) -> Overlap:
    """The overlap of two masks.

    Raises:
      ValueError: they are not of the same layers, or both are empty.
    """
    if dict(one.sizes) != dict(other.sizes):
        raise ValueError("masks are compared of the same network; these name other layers or sizes")
    both, mine, theirs = (
        {layer: _count(bits) for layer, bits in found.items()}
        for found in ({layer: one.bits[layer] & other.bits[layer] for layer in one.sizes}, one.bits, other.bits)
    )
    size, m, t = (sum(counts.values()) for counts in (one.sizes, mine, theirs))
    if not m + t:
        raise ValueError("masks that keep nothing have no overlap")
    by_layer = sum(mine[layer] * theirs[layer] / one.sizes[layer] for layer in one.sizes)
    found, chance, chance_by_layer = (both / (m + t - both) for both in (sum(both.values()), m * t / size, by_layer))
    return Overlap(found, chance, chance_by_layer)


def comparisons(masks: Iterable[Mask]) -> list[Comparison]:
    """All methods with each other at the same density and seed, and each with itself between seeds, by sparsity."""
    masks = list(masks)
    methods = list(dict.fromkeys(mask.method for mask in masks))
    found = []
    for density in sorted({mask.density for mask in masks}, reverse=True):
        here = [mask for mask in masks if mask.density == density]
        for pair in itertools.combinations_with_replacement(methods, 2):
            overlaps = [compare(one, other) for one, other in _pairs(here, *pair)]
            if overlaps:
                found.append(Comparison(density, pair, len(overlaps), _mean(overlaps)))
    return found


def _pairs(masks: list[Mask], method: str, other: str) -> Iterator[tuple[Mask, Mask]]:
    mine, theirs = ([mask for mask in masks if mask.method == name] for name in (method, other))
    if method == other:
        return itertools.combinations(mine, 2)
    return ((one, two) for one in mine for two in theirs if one.seed == two.seed)


def _mean(overlaps: list[Overlap]) -> Overlap:
    return Overlap(
        statistics.fmean(one.found for one in overlaps),
        statistics.fmean(one.chance for one in overlaps),
        statistics.fmean(one.chance_by_layer for one in overlaps),
    )


def _count(bits: np.ndarray) -> int:
    return int(np.bitwise_count(bits).sum(dtype=np.int64))
