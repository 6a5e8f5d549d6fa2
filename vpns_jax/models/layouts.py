"""How our variables are named and laid out in other libraries' files, in both directions.

A layout makes rules from the shapes of our variables. Each rule ties one tensor of a file to one of our
leaves (or, for timm's fused qkv, to several stacked along the file's first axis): ours is unfolded,
permuted and reshaped to the file's, and back. No rule rounds, so a round trip is exact bit for bit.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import flax.linen as nn
import numpy as np

from vpns_jax.models.resnet import ResNet
from vpns_jax.models.vgg import POOLED_SIZE, VGG
from vpns_jax.models.vit import HEAD_DIM, ViT

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


def _torch_rule(name: str, path: str, shape: Shape, *, unfold: Shape | None = None, merge: bool = False) -> Rule:
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


def _module(path: str) -> str:
    """The module that owns a leaf: "params/layer1_0/conv1/kernel" gives "layer1_0/conv1"."""
    return path.split("/", 1)[1].rpartition("/")[0]


def resnet_torchvision(shapes: Mapping[str, Shape]) -> list[Rule]:
    """ResNets as torchvision and timm both lay them out."""
    renamed = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1", "head": "fc"}
    rules = []
    for path, shape in shapes.items():
        parts = [renamed.get(part, part.replace("_", ".")) for part in _module(path).split("/")]
        rules.append(_torch_rule(".".join(parts), path, shape))
    return rules


def vgg_torchvision(shapes: Mapping[str, Shape]) -> list[Rule]:
    """VGGs in torchvision's layout: the first dense layer reads channels, then rows, then columns."""
    names = _vgg_features(shapes) | {"fc1": "classifier.0", "fc2": "classifier.3", "head": "classifier.6"}
    rules = []
    for path, shape in shapes.items():
        first = path == "params/fc1/kernel"
        unfold = (POOLED_SIZE, POOLED_SIZE, shape[0] // POOLED_SIZE**2, shape[1]) if first else None
        rules.append(_torch_rule(names[_module(path)], path, shape, unfold=unfold, merge=first))
    return rules


def vgg_timm(shapes: Mapping[str, Shape]) -> list[Rule]:
    """VGGs in timm's layout: the two hidden dense layers are convolutions, 7x7 and 1x1."""
    names = _vgg_features(shapes) | {"fc1": "pre_logits.fc1", "fc2": "pre_logits.fc2", "head": "head.fc"}
    sides = {"params/fc1/kernel": POOLED_SIZE, "params/fc2/kernel": 1}
    rules = []
    for path, shape in shapes.items():
        side = sides.get(path)
        unfold = (side, side, shape[0] // side**2, shape[1]) if side else None
        rules.append(_torch_rule(names[_module(path)], path, shape, unfold=unfold))
    return rules


def _vgg_features(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Our convolutions and norms by their index in torch's `features`, where ReLUs and pools count too."""
    modules = {_module(path) for path in shapes}
    names, index, last_stage = {}, 0, "1"
    for conv in sorted(m for m in modules if m.startswith("conv")):
        stage, i = conv.removeprefix("conv").split("_")
        index += stage != last_stage  # The pool between the stages.
        last_stage = stage
        names[conv], index = f"features.{index}", index + 1
        if f"bn{stage}_{i}" in modules:
            names[f"bn{stage}_{i}"], index = f"features.{index}", index + 1
        index += 1  # The ReLU.
    return names


def vit_timm(shapes: Mapping[str, Shape]) -> list[Rule]:
    """ViTs in timm's layout: query, key and value in one `qkv`."""
    renamed = {"embedding": "patch_embed.proj", "attention": "attn", "out": "proj"}
    rules = []
    for path, shape in shapes.items():
        module = _module(path)
        if not module:
            name = {"params/cls": "cls_token", "params/pos_embedding": "pos_embed"}[path]
            rules.append(Rule(name, (path,), shape, (0, 1, 2), shape))
            continue
        if module.endswith(("/key", "/value")):
            continue
        parts = [renamed.get(p, p.replace("block_", "blocks.")) for p in module.split("/")]
        if parts[-1] != "query":
            rules.append(_torch_rule(".".join(parts), path, shape))
            continue
        one = _torch_rule(".".join([*parts[:-1], "qkv"]), path, shape)
        paths = tuple(path.replace("/query/", f"/{part}/") for part in ("query", "key", "value"))
        rules.append(dataclasses.replace(one, paths=paths, fold=(3 * one.fold[0], *one.fold[1:])))
    return rules


def vit_augreg(shapes: Mapping[str, Shape]) -> list[Rule]:
    """ViTs in the `.npz` layout of AugReg (Steiner et al. 2021): Flax's, attention heads on an axis of their own."""
    attention = "MultiHeadDotProductAttention_1"
    renamed = {
        "cls": "cls",
        "pos_embedding": "Transformer/posembed_input/pos_embedding",
        "norm": "Transformer/encoder_norm",
        "norm1": "LayerNorm_0",
        "norm2": "LayerNorm_2",
        "attention": attention,
        "mlp": "MlpBlock_3",
        "fc1": "Dense_0",
        "fc2": "Dense_1",
    }
    rules = []
    for path, shape in shapes.items():
        parts = path.split("/")[1:]
        name = "/".join(renamed.get(p, p.replace("block_", "Transformer/encoderblock_")) for p in parts)
        fold = shape
        if parts[-2:-1] and parts[-2] in ("query", "key", "value"):
            fold = (*shape[:-1], shape[-1] // HEAD_DIM, HEAD_DIM)
        elif parts[-2:] == ["out", "kernel"]:
            fold = (shape[0] // HEAD_DIM, HEAD_DIM, shape[1])
        rules.append(Rule(name, (path,), fold, tuple(range(len(fold))), fold))
    return rules


# The first of each is what `export` writes.
LAYOUTS: dict[type[nn.Module], tuple[Layout, ...]] = {
    ResNet: (resnet_torchvision,),
    VGG: (vgg_torchvision, vgg_timm),
    ViT: (vit_timm, vit_augreg),
}
