"""How dense a masked network is: altogether, with and without its head, and layer by layer."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np


@dataclass(frozen=True)
class Layer:
    """One prunable kernel: its `path` joined by "/", its number of weights, and how many of them are kept."""

    path: str
    size: int
    kept: int

    @property
    def density(self) -> float:
        """The share kept, in [0, 1]."""
        return _share((self,))


@dataclass(frozen=True)
class DensityReport:
    """The layers of a masked network, the head's last; densities are shares kept, in [0, 1].

    A density over no weights at all (say `head_density` where the head is not prunable) is nan.
    """

    layers: tuple[Layer, ...]
    head: str = "head"

    @property
    def size(self) -> int:
        """The number of prunable weights."""
        return sum(layer.size for layer in self.layers)

    @property
    def kept(self) -> int:
        """The number of weights the mask keeps."""
        return sum(layer.kept for layer in self.layers)

    @property
    def head_layers(self) -> tuple[Layer, ...]:
        """The classifier's layers."""
        return tuple(layer for layer in self.layers if _top(layer.path) == self.head)

    @property
    def body_layers(self) -> tuple[Layer, ...]:
        """Every layer but the classifier's."""
        return tuple(layer for layer in self.layers if _top(layer.path) != self.head)

    @property
    def density(self) -> float:
        """The share kept of all prunable weights."""
        return _share(self.layers)

    @property
    def density_without_head(self) -> float:
        """The share kept outside the classifier, whose unmapped rows can be pruned "for free"."""
        return _share(self.body_layers)

    @property
    def head_density(self) -> float:
        """The share kept of the classifier."""
        return _share(self.head_layers)

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Paths of the layers of which nothing is kept."""
        return tuple(layer.path for layer in self.layers if layer.kept == 0)

    def to_json(self) -> dict[str, Any]:
        """Plain values only; a nan density becomes None."""
        return {
            "head": self.head,
            "density": _none_if_nan(self.density),
            "density_without_head": _none_if_nan(self.density_without_head),
            "head_density": _none_if_nan(self.head_density),
            "collapsed": list(self.collapsed),
            "layers": [{"path": x.path, "size": x.size, "kept": x.kept} for x in self.layers],
        }

    @classmethod
    def from_json(cls, layers: Iterable[Mapping[str, Any]], *, head: str = "head") -> "DensityReport":
        """The report again, from the "layers" of `to_json` or of a cell in summary.json."""
        return cls(tuple(Layer(str(x["path"]), int(x["size"]), int(x["kept"])) for x in layers), head)


def density_report(mask: Mapping[str, Any], *, head: str = "head") -> DensityReport:
    """Counts what a mask keeps.

    Args:
      mask: nested dict of bool arrays (jax, sharded or not, or numpy), one a prunable kernel.
      head: the top-level key under which the classifier lies.

    Returns:
      The report; layers stand in natural order ("block2" before "block10"), names that begin with "stem"
      first and the head last, because a dict that went through a jax transformation is sorted by key.

    Raises:
      TypeError: a leaf is not boolean.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(mask)
    named = [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]
    for path, leaf in named:
        if leaf.dtype != bool:
            raise TypeError(f"mask leaf {path!r} is {leaf.dtype}, expected bool")
    # Summing where the leaf lives moves one number a layer to the host, not the mask.
    counts = jax.device_get([leaf.sum() for _, leaf in named])
    layers = [Layer(path, int(np.size(leaf)), int(count)) for (path, leaf), count in zip(named, counts, strict=True)]
    return DensityReport(tuple(sorted(layers, key=lambda layer: _order(layer.path, head))), head)


def _order(path: str, head: str) -> tuple[int, list[tuple[int, int | str]]]:
    rank = 2 if _top(path) == head else 0 if path.startswith("stem") else 1
    # Digits compare as numbers, and the leading 0 or 1 keeps a number from meeting a string.
    parts = re.findall(r"\d+|\D+", path)
    return rank, [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _top(path: str) -> str:
    return path.split("/", 1)[0]


def _share(layers: Iterable[Layer]) -> float:
    layers = tuple(layers)
    size = sum(layer.size for layer in layers)
    return sum(layer.kept for layer in layers) / size if size else float("nan")


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else value
