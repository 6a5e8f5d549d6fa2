"""What ties one tensor of a file to our leaves, in both directions.

A layout makes rules from the shapes of our variables. Each rule ties one tensor of a file to one of our
leaves (or, for timm's fused qkv, to several stacked along the file's first axis): ours is unfolded,
permuted and reshaped to the file's, and back. No rule rounds, so a round trip is exact bit for bit.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

Shape = tuple[int, ...]

FLOAT32 = np.dtype(np.float32)
INT64 = np.dtype(np.int64)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One tensor of a file.

    Attributes:
      name: its name there.
      paths: our leaves in it, such as "params/head/kernel"; several are stacked along its first axis.
      unfold: what each leaf is reshaped to before it is permuted.
      permutation: the file's axes in terms of the unfolded leaf's.
      fold: the shape of the tensor in the file.
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
        """The file's tensor, a fresh array, from our leaves by path."""
        parts = [np.asarray(leaves[p]).reshape(self.unfold).transpose(self.permutation) for p in self.paths]
        whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return np.array(whole, self.dtype, order="C").reshape(self.fold)

    def from_file(self, tensor: np.ndarray, shapes: Mapping[str, Shape]) -> dict[str, np.ndarray]:
        """Our leaves by path, as fresh arrays, from a tensor of shape `fold`."""
        permuted = tuple(self.unfold[axis] for axis in self.permutation)
        parts = tensor.reshape(len(self.paths), *permuted)
        inverse = np.argsort(self.permutation)
        ours = np.int32 if self.dtype == INT64 else np.float32
        return {
            path: np.array(part.transpose(inverse), ours, order="C").reshape(shapes[path])
            for path, part in zip(self.paths, parts, strict=True)
        }


Layout = Callable[[Mapping[str, Shape]], list[Rule]]

TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "count": "num_batches_tracked",
}
# HWIO to OIHW, and [in, out] to [out, in].
TORCH_PERMUTATIONS = {4: (3, 2, 0, 1), 2: (1, 0)}


def torch_rule(name: str, path: str, shape: Shape, *, unfold: Shape | None = None, merge: bool = False) -> Rule:
    """The rule for one leaf whose module torch calls `name`.

    `unfold` splits a dense kernel's input axis as `[h, w, c, out]`; the file then has `[out, c, h, w]`, or
    `[out, c * h * w]` if `merge`.
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
