"""Rules that convert our leaves to a file's tensors and back.

A layout makes rules from the shapes of our variables. Each rule belongs to one tensor of a file. It converts one of
our leaves (or, for timm's fused qkv, several, stacked along the tensor's first axis): the leaf is unfolded, permuted
and reshaped to the tensor, and back. Rules do not round, so a round trip is exact bit for bit.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Shape = tuple[int, ...]

FLOAT32 = np.dtype(np.float32)
INT64 = np.dtype(np.int64)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One tensor of a file.

    Attributes:
      name: its name in the file.
      paths: our leaves in it, such as "params/head/kernel"; several are stacked along its first axis.
      unfold: the shape to which each leaf is reshaped before it is permuted.
      permutation: how the axes of the unfolded leaf are permuted.
      fold: the tensor's shape in the file.
      dtype: its dtype in the file.
      optional: whether a file may lack it (the leaf is then zero).
    """

    name: str
    paths: tuple[str, ...]
    unfold: Shape
    permutation: Shape
    fold: Shape
    dtype: np.dtype = FLOAT32
    optional: bool = False

    def to_file(self, leaves: Mapping[str, np.ndarray]) -> np.ndarray:
        """Converts our leaves, given by path, to the file's tensor, a fresh array."""
        parts = [np.asarray(leaves[p]).reshape(self.unfold).transpose(self.permutation) for p in self.paths]
        whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return _copied(whole, self.dtype, axis=1 if whole.ndim > 1 else 0).reshape(self.fold)

    def from_file(self, tensor: np.ndarray, shapes: Mapping[str, Shape]) -> dict[str, np.ndarray]:
        """Converts a tensor of shape `fold` to our leaves by path, fresh arrays of the given shapes."""
        permuted = tuple(self.unfold[axis] for axis in self.permutation)
        parts = tensor.reshape(len(self.paths), *permuted)
        inverse = np.argsort(self.permutation)
        ours = np.int32 if self.dtype == INT64 else np.float32
        return {
            path: _copied(part.transpose(inverse), ours, axis=-1).reshape(shapes[path])
            for path, part in zip(self.paths, parts, strict=True)
        }


def _copied(transposed: np.ndarray, dtype: Any, *, axis: int) -> np.ndarray:
    """A copy in C order. It is made in pieces of an axis, so that what a read brings into the cache is used."""
    transposed = np.atleast_1d(transposed)
    copy = np.empty(transposed.shape, dtype)
    into, source = (np.moveaxis(array, axis, 0) for array in (copy, transposed))
    for start in range(0, len(into), 64):
        into[start : start + 64] = source[start : start + 64]
    return copy


Layout = Callable[[Mapping[str, Shape]], list[Rule]]

TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "gamma": "gamma",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "count": "num_batches_tracked",
}
# HWIO to OIHW, and [in, out] to [out, in].
TORCH_PERMUTATIONS = {4: (3, 2, 0, 1), 2: (1, 0)}


def torch_rule(name: str, path: str, shape: Shape, *, unfold: Shape | None = None, merge: bool = False) -> Rule:
    """The rule for one leaf in torch's conventions.

    Args:
      name: torch's name for the leaf's module.
      path: the leaf's path.
      shape: the leaf's shape.
      unfold: for a dense kernel that reads a feature map, `[h, w, c, out]`: the tensor is then `[out, c, h, w]`.
      merge: whether the tensor is `[out, c * h * w]` instead.

    Returns:
      The rule.
    """
    leaf = path.rsplit("/", 1)[-1]
    unfold = unfold or shape
    permutation = TORCH_PERMUTATIONS[len(unfold)] if leaf == "kernel" else tuple(range(len(shape)))
    fold = tuple(unfold[axis] for axis in permutation)
    if merge:
        fold = (fold[0], math.prod(fold[1:]))
    counter = leaf == "count"
    dtype = INT64 if counter else FLOAT32
    return Rule(f"{name}.{TORCH_LEAVES[leaf]}", (path,), unfold, permutation, fold, dtype, counter)


def module_of(path: str) -> str:
    """The module that owns a leaf: "params/layer1_0/conv1/kernel" gives "layer1_0/conv1"."""
    return path.split("/", 1)[1].rpartition("/")[0]
