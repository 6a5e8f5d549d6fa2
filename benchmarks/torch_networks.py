"""The backbones as PyTorch functions of a dict of tensors, whose names are those of `models.export`.

They are only for benchmarks. A masked network is the same function, applied to masked tensors.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

Tensors = dict[str, torch.Tensor]
# (tensors, normalized images [b, c, h, w]) -> logits [b, s], as in training.
Forward = Callable[[Tensors, torch.Tensor], torch.Tensor]


def resnet(p: Tensors, x: torch.Tensor) -> torch.Tensor:
    """ResNets with basic or bottleneck blocks."""
    x = F.relu(_batch_norm(p, "bn1", F.conv2d(x, p["conv1.weight"], stride=2, padding=3)))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage in range(1, 5):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in p:
            x = _block(p, f"layer{stage}.{block}", x, stride=2 if stage > 1 and block == 0 else 1)
            block += 1
    return F.linear(x.mean((2, 3)), p["fc.weight"], p["fc.bias"])


def _block(p: Tensors, name: str, x: torch.Tensor, *, stride: int) -> torch.Tensor:
    deep, y, i = f"{name}.conv3.weight" in p, x, 1
    while f"{name}.conv{i}.weight" in p:
        kernel = p[f"{name}.conv{i}.weight"]
        strided = i == (2 if deep else 1)
        y = F.relu(y) if i > 1 else y
        y = F.conv2d(y, kernel, stride=stride if strided else 1, padding=kernel.shape[-1] // 2)
        y, i = _batch_norm(p, f"{name}.bn{i}", y), i + 1
    if f"{name}.downsample.0.weight" in p:
        x = _batch_norm(p, f"{name}.downsample.1", F.conv2d(x, p[f"{name}.downsample.0.weight"], stride=stride))
    return F.relu(y + x)


def _batch_norm(p: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    mean, var = p[f"{name}.running_mean"], p[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, p[f"{name}.weight"], p[f"{name}.bias"], training=True)


def vgg(p: Tensors, x: torch.Tensor) -> torch.Tensor:
    """VGG-16 without batch normalization and dropout. There is a pool where `features` skips an index."""
    convolutions = sorted(int(key.split(".")[1]) for key in p if key.startswith("features.") and key.endswith("weight"))
    for i in convolutions:
        x = F.relu(F.conv2d(x, p[f"features.{i}.weight"], p[f"features.{i}.bias"], padding=1))
        if i + 2 not in convolutions:
            x = F.max_pool2d(x, 2)
    x = F.adaptive_avg_pool2d(x, 7).flatten(1)
    for i in (0, 3):
        x = F.relu(F.linear(x, p[f"classifier.{i}.weight"], p[f"classifier.{i}.bias"]))
    return F.linear(x, p["classifier.6.weight"], p["classifier.6.bias"])


def vit(p: Tensors, x: torch.Tensor) -> torch.Tensor:
    """Vision Transformers with heads of 64 channels, without dropout."""
    patches = p["patch_embed.proj.weight"]
    x = F.conv2d(x, patches, p["patch_embed.proj.bias"], stride=patches.shape[-1]).flatten(2).transpose(1, 2)
    x = torch.cat([p["cls_token"].expand(len(x), -1, -1), x], 1) + p["pos_embed"]
    block = 0
    while f"blocks.{block}.norm1.weight" in p:
        name = f"blocks.{block}"
        x = x + _attention(p, f"{name}.attn", _layer_norm(p, f"{name}.norm1", x))
        y = F.gelu(_linear(p, f"{name}.mlp.fc1", _layer_norm(p, f"{name}.norm2", x)))
        x, block = x + _linear(p, f"{name}.mlp.fc2", y), block + 1
    return _linear(p, "head", _layer_norm(p, "norm", x)[:, 0])


def _attention(p: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    b, n, c = x.shape
    q, k, v = _linear(p, f"{name}.qkv", x).reshape(b, n, 3, c // 64, 64).permute(2, 0, 3, 1, 4)
    return _linear(p, f"{name}.proj", F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))


def _linear(p: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def _layer_norm(p: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], eps=1e-6)


NETWORKS: dict[str, Forward] = {
    "resnet18": resnet,
    "resnet34": resnet,
    "resnet50": resnet,
    "vgg16": vgg,
    "vit_ti16": vit,
    "vit_s16": vit,
    "vit_b16": vit,
    "vit_l16": vit,
}
