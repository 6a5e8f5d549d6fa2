"""The density of a masked network: in all, without its head, and layer by layer."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from vpns_jax import trees


@dataclass(frozen=True)
class Layer:
    """One prunable kernel: its "/"-joined path, its number of weights, and the number of kept weights."""

    path: str
    size: int
    kept: int

    @property
    def density(self) -> float:
        """The share of kept weights, in [0, 1]."""
        return _share((self,))


@dataclass(frozen=True)
class DensityReport:
    """The layers of a masked network, the head's last. Densities are shares of kept weights, in [0, 1].

    A density over no weights is nan, for example `density_without_head` if the head alone is prunable.
    """

    layers: tuple[Layer, ...]
    head: str = "head"

    @property
    def size(self) -> int:
        """The number of prunable weights."""
        return sum(layer.size for layer in self.layers)

    @property
    def kept(self) -> int:
        """The number of weights that the mask keeps."""
        return sum(layer.kept for layer in self.layers)

    @property
    def head_layers(self) -> tuple[Layer, ...]:
        """The classifier's layers."""
        return tuple(layer for layer in self.layers if _top(layer.path) == self.head)

    @property
    def body_layers(self) -> tuple[Layer, ...]:
        """All layers except the classifier's."""
        return tuple(layer for layer in self.layers if _top(layer.path) != self.head)

    @property
    def density(self) -> float:
        """The share of kept weights among all prunable weights."""
        return _share(self.layers)

    @property
    def density_without_head(self) -> float:
        """The share of kept weights outside the classifier, whose unmapped classes can be pruned without any loss."""
        return _share(self.body_layers)

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Paths of the layers without any kept weight."""
        return tuple(layer.path for layer in self.layers if layer.kept == 0)

    def to_json(self) -> list[dict[str, Any]]:
        """The layers as JSON values, for "layers" of a cell in summary.json."""
        return [{"path": x.path, "size": x.size, "kept": x.kept} for x in self.layers]

    @classmethod
    def from_json(cls, layers: Iterable[Mapping[str, Any]], *, head: str = "head") -> "DensityReport":
        """Reads a report.

        Args:
          layers: what `to_json` made.
          head: the top-level key of the classifier.

        Returns:
          The report.
        """
        return cls(tuple(Layer(str(x["path"]), int(x["size"]), int(x["kept"])) for x in layers), head)


def density_report(mask: Mapping[str, Any], *, head: str = "head") -> DensityReport:
    """Counts the weights that a mask keeps.

    Args:
      mask: nested dict of bool arrays, one for each prunable kernel; NumPy's, or JAX's, sharded or not.
      head: the top-level key of the classifier.

    Returns:
      The report. Layers are in natural order ("block2" before "block10"), with names that begin with "stem" first and
      the head last. A dict's own order is lost in JAX's transformations, which sort keys.

    Raises:
      TypeError: a leaf is not boolean.
    """
    named = list(trees.named_leaves(mask).items())
    for path, leaf in named:
        if leaf.dtype != bool:
            raise TypeError(f"mask leaf {path!r} is {leaf.dtype}, expected bool")
    # Each leaf is summed on its device, so that only one number a layer moves to the host.
    counts = jax.device_get([leaf.sum() for _, leaf in named])
    layers = [Layer(path, int(np.size(leaf)), int(count)) for (path, leaf), count in zip(named, counts, strict=True)]
    return DensityReport(tuple(sorted(layers, key=lambda layer: _order(layer.path, head))), head)


def _order(path: str, head: str) -> tuple[int, list[tuple[int, int | str]]]:
    rank = 2 if _top(path) == head else 0 if path.startswith("stem") else 1
    # Digits are compared as numbers. The leading 0 or 1 prevents comparing a number with a string.
    parts = re.findall(r"\d+|\D+", path)
    return rank, [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _top(path: str) -> str:
    return path.split("/", 1)[0]


def _share(layers: Iterable[Layer]) -> float:
    layers = tuple(layers)
    size = sum(layer.size for layer in layers)
    return sum(layer.kept for layer in layers) / size if size else float("nan")
