"""The overlap of masks, compared with the overlap that is expected by chance."""

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mask:
    """The mask of one cell.

    Attributes:
      method: the cell's method.
      density: share of weights kept.
      seed: the cell's seed.
      bits: by layer, uint8 with eight weights a byte, in the layout of `np.packbits`; unused bits are zero.
      sizes: by layer, the number of weights.
    """

    method: str
    density: float
    seed: int
    bits: Mapping[str, np.ndarray]
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Overlap:
    """Jaccard indices, in [0, 1]: the number of weights that both masks keep, over the number that at least one keeps.

    Attributes:
      jaccard: the index of the two masks.
      chance: the index of random masks of the same densities (expected intersection over the resulting union).
      chance_by_layer: the index of random masks with the same densities in each layer. A larger index means that the
        two masks agree on weights, not only on the layers' densities.
    """

    jaccard: float
    chance: float
    chance_by_layer: float


@dataclass(frozen=True)
class Comparison:
    """The overlap of two methods at one density, or of a method's seeds if both are the same; a mean over `pairs`."""

    density: float
    methods: tuple[str, str]
    pairs: int
    overlap: Overlap


def compare(first: Mask, second: Mask) -> Overlap:
    """The overlap of two masks.

    Args:
      first: a mask.
      second: a mask of the same network.

    Returns:
      The overlap.

    Raises:
      ValueError: the masks have different layers, or both are empty.
    """
    if dict(first.sizes) != dict(second.sizes):
        raise ValueError("masks are compared of the same network; these name other layers or sizes")
    both, mine, theirs = (
        {layer: _count(bits) for layer, bits in mask.items()}
        for mask in (
            {layer: first.bits[layer] & second.bits[layer] for layer in first.sizes},
            first.bits,
            second.bits,
        )
    )
    size, m, t = (sum(counts.values()) for counts in (first.sizes, mine, theirs))
    if not m + t:
        raise ValueError("masks that keep nothing have no overlap")
    by_layer = sum(mine[layer] * theirs[layer] / first.sizes[layer] for layer in first.sizes)
    return Overlap(*(common / (m + t - common) for common in (sum(both.values()), m * t / size, by_layer)))


def comparisons(masks: Iterable[Mask]) -> list[Comparison]:
    """Compares all methods with each other at the same density and seed, and each method's seeds with each other.

    Args:
      masks: masks of the same network.

    Returns:
      The comparisons, by rising sparsity.
    """
    masks = list(masks)
    methods = list(dict.fromkeys(mask.method for mask in masks))
    result = []
    for density in sorted({mask.density for mask in masks}, reverse=True):
        here = [mask for mask in masks if mask.density == density]
        for pair in itertools.combinations_with_replacement(methods, 2):
            overlaps = [compare(first, second) for first, second in _pairs(here, *pair)]
            if overlaps:
                result.append(Comparison(density, pair, len(overlaps), _mean(overlaps)))
    return result


def _pairs(masks: list[Mask], method: str, other: str) -> Iterator[tuple[Mask, Mask]]:
    mine, theirs = ([mask for mask in masks if mask.method == name] for name in (method, other))
    if method == other:
        return itertools.combinations(mine, 2)
    return ((first, second) for first in mine for second in theirs if first.seed == second.seed)


def _mean(overlaps: list[Overlap]) -> Overlap:
    return Overlap(
        statistics.fmean(overlap.jaccard for overlap in overlaps),
        statistics.fmean(overlap.chance for overlap in overlaps),
        statistics.fmean(overlap.chance_by_layer for overlap in overlaps),
    )


def _count(bits: np.ndarray) -> int:
    return int(np.bitwise_count(bits).sum(dtype=np.int64))
