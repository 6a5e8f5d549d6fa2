"""Writes each family of networks as an ONNX graph, from normalized images `[b, 3, h, w]` to logits `[b, s]`.

Batch normalization is folded into the convolution before it. This is exact, because zeros are padded before the
convolution. A branch without channels is left out, except for the constant that it adds.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from vpns_jax.deploy.exports.graph import Graph
from vpns_jax.errors import UserError
from vpns_jax.models.convnext import ConvNeXt
from vpns_jax.models.cpu.pooling import averaging_matrix
from vpns_jax.models.head import DISTILLED_HEAD, HEAD
from vpns_jax.models.norm import EPSILON
from vpns_jax.models.own_network import class_name
from vpns_jax.models.resnet import BLOCKS, ResNet
from vpns_jax.models.vgg import POOLED_SIZE, VGG
from vpns_jax.models.vit import HEAD_DIM, ViT

# The variables of a network by their paths, "params/..." and "batch_stats/...".
Leaves = Mapping[str, np.ndarray]


def backbone(graph: Graph, model: nn.Module, leaves: Leaves, x: str, size: int) -> str:
    """Adds a network to a graph.

    Args:
      graph: the graph.
      model: the network's module.
      leaves: its variables by path.
      x: the normalized images, `[b, 3, size, size]`.
      size: the side of the images, in pixels.

    Returns:
      The name of the logits, `[b, s]`.

    Raises:
      UserError: the network is of another family.
    """
    for family, add in FAMILIES.items():
        if isinstance(model, family):
            features = add(graph, model, leaves, x, size)
            return graph.dense(features, *_head(leaves))
    known = ", ".join(family.__name__ for family in FAMILIES)
    raise UserError(f"ONNX is written for {known}; this network is a {class_name(model)}: export it as stablehlo")


def _head(leaves: Leaves) -> tuple[np.ndarray, np.ndarray]:
    """The head's kernel and bias. Two heads are one dense layer on the features of both, one after the other."""
    kernel, bias = _layer(leaves, HEAD)
    if f"params/{DISTILLED_HEAD}/kernel" not in leaves:
        return kernel, bias
    second = _layer(leaves, DISTILLED_HEAD)
    return np.concatenate([kernel, second[0]]) / 2, (bias + second[1]) / 2


def _convnext(graph: Graph, model: ConvNeXt, leaves: Leaves, x: str, size: int) -> str:
    x = _channels_normed(graph, leaves, graph.conv(x, *_layer(leaves, "stem_conv"), stride=4), "stem_norm")
    for stage, depth in enumerate(model.depths, start=1):
        if stage > 1:
            x = _channels_normed(graph, leaves, x, f"downsample{stage}_norm")
            x = graph.conv(x, *_layer(leaves, f"downsample{stage}_conv"), stride=2)
        for i in range(depth):
            x = graph.node("Add", x, _convnext_branch(graph, leaves, x, f"stage{stage}_{i}"))
    return _layer_norm(graph, leaves, graph.node("Flatten", graph.node("GlobalAveragePool", x), axis=1), "norm")


def _convnext_branch(graph: Graph, leaves: Leaves, x: str, block: str) -> str:
    """The branch of a block; its last kernel and bias are multiplied by the block's scale."""
    gamma = leaves[f"params/{block}/gamma"].astype(np.float64)
    kernel, bias = (array * gamma for array in _layer(leaves, f"{block}/fc2"))
    if not kernel.size:
        return graph.constant(bias.reshape(1, -1, 1, 1))
    depthwise, shift = _layer(leaves, f"{block}/depthwise")
    y = graph.conv(x, depthwise, shift, padding=depthwise.shape[0] // 2, groups=shift.size)
    y = _layer_norm(graph, leaves, graph.node("Transpose", y, perm=[0, 2, 3, 1]), f"{block}/norm")
    y = graph.dense(graph.gelu(graph.dense(y, *_layer(leaves, f"{block}/fc1"))), kernel, bias)
    return graph.node("Transpose", y, perm=[0, 3, 1, 2])


def _channels_normed(graph: Graph, leaves: Leaves, x: str, name: str) -> str:
    """Normalizes `[b, c, h, w]` over the channels."""
    y = _layer_norm(graph, leaves, graph.node("Transpose", x, perm=[0, 2, 3, 1]), name)
    return graph.node("Transpose", y, perm=[0, 3, 1, 2])


def _resnet(graph: Graph, model: ResNet, leaves: Leaves, x: str, size: int) -> str:
    stem = _folded(leaves, "conv1", "bn1")
    if model.stem == "imagenet":
        x = graph.node("Relu", graph.conv(x, *stem, stride=2, padding=3))
        x = graph.max_pool(x, window=3, stride=2, padding=1)
    else:
        x = graph.node("Relu", graph.conv(x, *stem, padding=1))
    for stage, depth in enumerate(model.depths):
        for i in range(depth):
            x = _block(graph, model, leaves, x, f"layer{stage + 1}_{i}", 2 if stage > 0 and i == 0 else 1)
    return graph.node("Flatten", graph.node("GlobalAveragePool", x), axis=1)


def _block(graph: Graph, model: ResNet, leaves: Leaves, x: str, name: str, stride: int) -> str:
    """Adds a residual block, whose first 3x3 convolution has the stride."""
    count = BLOCKS[model.block].convolutions
    layers = [_folded(leaves, f"{name}/conv{i}", f"{name}/bn{i}") for i in range(1, count + 1)]
    if all(kernel.size for kernel, _ in layers):
        y = x
        for i, (kernel, bias) in enumerate(layers):
            step = stride if i == count - 2 else 1
            y = graph.conv(y, kernel, bias, stride=step, padding=kernel.shape[0] // 2)
            y = graph.node("Relu", y) if i < count - 1 else y
    else:
        y = graph.constant(layers[-1][1].reshape(1, -1, 1, 1))
    if f"params/{name}/downsample_conv/kernel" in leaves:
        x = graph.conv(x, *_folded(leaves, f"{name}/downsample_conv", f"{name}/downsample_bn"), stride=stride)
    return graph.node("Relu", graph.node("Add", y, x))


def _vgg(graph: Graph, model: VGG, leaves: Leaves, x: str, size: int) -> str:
    for stage, (depth, _) in enumerate(model.stages, start=1):
        for i in range(1, depth + 1):
            conv, norm = f"conv{stage}_{i}", f"bn{stage}_{i}"
            kernel, bias = _folded(leaves, conv, norm) if model.batch_norm else _layer(leaves, conv)
            x = graph.node("Relu", graph.conv(x, kernel, bias, padding=1))
        x, size = graph.max_pool(x, window=2, stride=2), size // 2
    if size != POOLED_SIZE:
        matrix = averaging_matrix(size, POOLED_SIZE)
        x = graph.node("MatMul", graph.constant(matrix), graph.node("MatMul", x, graph.constant(matrix.T)))
    x = graph.node("Flatten", x, axis=1)
    kernel, bias = _layer(leaves, "fc1")
    # ONNX flattens channels before rows and columns, and this library after them.
    kernel = kernel.reshape(POOLED_SIZE**2, -1, bias.size).transpose(1, 0, 2).reshape(kernel.shape)
    x = graph.node("Relu", graph.dense(x, kernel, bias))
    return graph.node("Relu", graph.dense(x, *_layer(leaves, "fc2")))


def _vit(graph: Graph, model: ViT, leaves: Leaves, x: str, size: int) -> str:
    x = graph.conv(x, *_layer(leaves, "embedding"), stride=model.patch)
    x = graph.node("Reshape", x, graph.constant(np.array([0, 0, -1], np.int64)))
    x = graph.node("Transpose", x, perm=[0, 2, 1])
    # Learned tokens are zero until they are added together with their positions.
    count = len(model.tokens)
    x = graph.node("Pad", x, graph.constant(np.array([0, count, 0, 0, 0, 0], np.int64)))
    positions = np.array(leaves["params/pos_embedding"])
    positions[:, :count] += np.concatenate([leaves[f"params/{name}"] for name in model.tokens], axis=1)
    x = graph.node("Add", x, graph.constant(positions))
    for i in range(model.depth):
        name = f"block_{i}"
        x = graph.node("Add", x, _attention(graph, leaves, _layer_norm(graph, leaves, x, f"{name}/norm1"), name))
        x = graph.node("Add", x, _mlp(graph, leaves, _layer_norm(graph, leaves, x, f"{name}/norm2"), name))
    tokens = graph.node("Gather", x, graph.constant(np.arange(count)), axis=1)
    return graph.node("Flatten", _layer_norm(graph, leaves, tokens, "norm"), axis=1)


def _attention(graph: Graph, leaves: Leaves, x: str, block: str) -> str:
    layers = {name: _layer(leaves, f"{block}/attention/{name}") for name in ("query", "key", "value", "out")}
    heads = layers["value"][1].size // HEAD_DIM
    if not heads:
        return graph.constant(layers["out"][1])

    def project(name: str, order: list[int], scale: float = 1) -> str:
        kernel, bias = layers[name]
        y = graph.dense(x, kernel * np.float32(scale), bias * np.float32(scale))
        y = graph.node("Reshape", y, graph.constant(np.array([0, 0, heads, HEAD_DIM], np.int64)))
        return graph.node("Transpose", y, perm=order)

    # The scale is a power of two, so the queries' weights are multiplied without rounding.
    query, key = project("query", [0, 2, 1, 3], scale=HEAD_DIM**-0.5), project("key", [0, 2, 3, 1])
    weights = graph.node("Softmax", graph.node("MatMul", query, key), axis=-1)
    y = graph.node("MatMul", weights, project("value", [0, 2, 1, 3]))
    y = graph.node("Transpose", y, perm=[0, 2, 1, 3])
    y = graph.node("Reshape", y, graph.constant(np.array([0, 0, heads * HEAD_DIM], np.int64)))
    return graph.dense(y, *layers["out"])


def _mlp(graph: Graph, leaves: Leaves, x: str, block: str) -> str:
    fc1, fc2 = _layer(leaves, f"{block}/mlp/fc1"), _layer(leaves, f"{block}/mlp/fc2")
    if not fc1[1].size:
        return graph.constant(fc2[1])
    return graph.dense(graph.gelu(graph.dense(x, *fc1)), *fc2)


def _layer_norm(graph: Graph, leaves: Leaves, x: str, name: str) -> str:
    scale, bias = (graph.constant(leaves[f"params/{name}/{leaf}"]) for leaf in ("scale", "bias"))
    return graph.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-6)


def _layer(leaves: Leaves, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A layer's kernel and bias."""
    return leaves[f"params/{name}/kernel"], leaves[f"params/{name}/bias"]


def _folded(leaves: Leaves, conv: str, norm: str) -> tuple[np.ndarray, np.ndarray]:
    """The kernel and bias of a convolution with the normalization after it, in float64."""
    kernel = leaves[f"params/{conv}/kernel"].astype(np.float64)
    scale, shift = (leaves[f"params/{norm}/{leaf}"].astype(np.float64) for leaf in ("scale", "bias"))
    mean, var = (leaves[f"batch_stats/{norm}/{leaf}"].astype(np.float64) for leaf in ("mean", "var"))
    factor = scale / np.sqrt(var + EPSILON)
    return kernel * factor, (leaves.get(f"params/{conv}/bias", 0) - mean) * factor + shift


FAMILIES: dict[type[nn.Module], Callable[[Graph, Any, Leaves, str, int], str]] = {
    ConvNeXt: _convnext,
    ResNet: _resnet,
    VGG: _vgg,
    ViT: _vit,
}
