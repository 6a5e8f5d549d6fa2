"""Random networks: Linen modules that are traced, and the same functions in NumPy, which run without compiling."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from vpns_jax.models.widths import Widths, width_of
from vpns_jax.models.wiring import gelu, relu, silu

SIDE, CLASSES = 4, 3
ACTIVATIONS = {"relu": relu, "gelu": gelu, "silu": silu, "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x))}
TRACED = {"gelu": lambda x: nn.gelu(x, approximate=False)}


class Node(NamedTuple):
    """A step: what it does, with which earlier results, and its number of channels and other numbers."""

    kind: str
    inputs: tuple[int, ...]
    width: int = 0
    size: int = 1
    norm: bool = False
    bias: bool = False
    name: str = ""


class Dag(nn.Module):
    """A network of steps; the last result is pooled, or flattened, and classified.

    Layers that write the same channels are paired with the first of them in `firsts`, which has their width.
    """

    nodes: tuple[Node, ...]
    flat: bool
    widths: Widths = ()
    firsts: tuple[tuple[str, str], ...] = ()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        def width(name: str, standard: int) -> int:
            return width_of(self.widths, dict(self.firsts).get(name, name), standard)

        values = [images]
        for i, node in enumerate(self.nodes):
            x, *others = (values[j] for j in node.inputs)
            if node.kind == "conv":
                y = nn.Conv(width(f"c{i}", node.width), (node.size, node.size), use_bias=node.bias, name=f"c{i}")(x)
                y = nn.BatchNorm(True, epsilon=1e-3, name=f"n{i}")(y) if node.norm else y
            elif node.kind == "depthwise":
                y = nn.Conv(x.shape[-1], (3, 3), feature_group_count=x.shape[-1], use_bias=node.bias, name=f"c{i}")(x)
            elif node.kind == "norm":
                y = nn.BatchNorm(True, epsilon=1e-3, name=f"n{i}")(x)
            elif node.kind in ("attend", "mix"):
                tokens, name = x.reshape(len(x), -1, x.shape[-1]), f"c{i}_"
                if node.kind == "attend":
                    parts = [
                        nn.Dense(width(f"{name}{part}", node.width), name=f"{name}{part}")(tokens) for part in "qkv"
                    ]
                    y = attended(jnp, nn.softmax, *parts)
                else:
                    y = nn.Dense(width(f"{name}in", node.width), use_bias=node.bias, name=f"{name}in")
                    y = nn.relu(y(tokens.swapaxes(1, 2)))
                    y = nn.Dense(SIDE * SIDE, use_bias=node.bias, name=f"{name}out")(y).swapaxes(1, 2)
                y = y.reshape(*x.shape[:-1], -1)
            elif node.kind == "scale":
                y = x * self.param(f"s{i}", nn.initializers.ones, (x.shape[-1],))[None, None, None]
            elif node.kind == "activation":
                y = TRACED.get(node.name, getattr(nn, node.name))(x)
            else:
                y = moved(jnp, node, x, *others)
            values.append(y)
        x = values[-1]
        x = x.reshape(x.shape[0], -1) if self.flat else x.mean((1, 2))
        return nn.Dense(CLASSES, name="head")(x)


def moved(xp: Any, node: Node, x: Any, *others: Any) -> Any:
    """What needs no parameters and is written alike for NumPy and JAX."""
    half = x.shape[-1] // 2
    if node.kind == "add":
        return x + others[0]
    if node.kind == "maximum":
        return xp.maximum(x, others[0])
    if node.kind == "multiply":
        return x * others[0]
    if node.kind == "concatenate":
        return xp.concatenate([x, *others], axis=-1)
    if node.kind == "pool":
        return xp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)
    if node.kind == "pad":
        return xp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, :SIDE, :SIDE]
    if node.kind == "lower":
        return xp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0)))[:, 1:]
    if node.kind == "clip":
        return xp.where(x > 0.2, x, 0 * x)
    if node.kind == "roll":
        return xp.concatenate([x[..., 1:], x[..., :1]], axis=-1)
    if node.kind == "glu":
        return x[..., :half] * x[..., half : 2 * half]
    if node.kind == "shuffle":
        return x.reshape(*x.shape[:-1], 2, half).swapaxes(-1, -2).reshape(x.shape)
    if node.kind == "standardize":
        return x - x.mean(-1, keepdims=True)
    if node.kind == "shift":
        return x + 0.5
    raise ValueError(node.kind)


def run(nodes: tuple[Node, ...], flat: bool, leaves: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """The network in NumPy, for weights of any width."""
    values = [images]
    for i, node in enumerate(nodes):
        x, *others = (values[j] for j in node.inputs)
        if node.kind in ("conv", "depthwise"):
            y = convolve(x, leaves[f"params/c{i}/kernel"]) + leaves.get(f"params/c{i}/bias", 0)
            y = normalized(y, leaves, i) if node.norm else y
        elif node.kind == "norm":
            y = normalized(x, leaves, i)
        elif node.kind in ("attend", "mix"):
            tokens, name = x.reshape(len(x), -1, x.shape[-1]), f"params/c{i}_"
            if node.kind == "attend":
                y = attended(np, softmax, *(dense(tokens, leaves, f"{name}{part}") for part in "qkv"))
            else:
                y = relu(dense(tokens.swapaxes(1, 2), leaves, f"{name}in"))
                y = dense(y, leaves, f"{name}out").swapaxes(1, 2)
            y = y.reshape(*x.shape[:-1], -1)
        elif node.kind == "scale":
            y = x * leaves[f"params/s{i}"]
        elif node.kind == "activation":
            y = ACTIVATIONS[node.name](x)
        else:
            y = moved(np, node, x, *others)
        values.append(y)
    x = values[-1]
    x = x.reshape(len(x), -1) if flat else x.mean((1, 2))
    return x @ leaves["params/head/kernel"] + leaves["params/head/bias"]


def attended(xp: Any, softmax: Any, query: Any, key: Any, value: Any) -> Any:
    """Attention of heads with two channels."""
    query, key, value = (each.reshape(*each.shape[:2], -1, 2) for each in (query, key, value))
    weights = softmax(xp.einsum("bqhd,bkhd->bhqk", query, key))
    return xp.einsum("bhqk,bkhd->bqhd", weights, value)


def normalized(x: np.ndarray, leaves: dict[str, np.ndarray], i: int) -> np.ndarray:
    mean, var = (leaves[f"batch_stats/n{i}/{name}"] for name in ("mean", "var"))
    return (x - mean) / np.sqrt(var + 1e-3) * leaves[f"params/n{i}/scale"] + leaves[f"params/n{i}/bias"]


def dense(x: np.ndarray, leaves: dict[str, np.ndarray], path: str) -> np.ndarray:
    return x @ leaves[f"{path}/kernel"] + leaves.get(f"{path}/bias", 0)


def softmax(x: np.ndarray) -> np.ndarray:
    return special.softmax(x, axis=-1)


def convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A padded convolution with stride 1; a depthwise one if the kernel has one input."""
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    deep = kernel.shape[2] == 1 and x.shape[-1] == kernel.shape[3]
    parts = [
        part * kernel[i, j, 0] if deep else part @ kernel[i, j]
        for i in range(size)
        for j in range(size)
        for part in [x[:, i : i + SIDE, j : j + SIDE]]
    ]
    return np.sum(parts, axis=0)


def draw(rng: np.random.Generator) -> Dag:
    """A random network of about ten steps."""
    nodes: list[Node] = []
    widths = [3]

    def add(node: Node, width: int) -> int:
        nodes.append(node)
        widths.append(width)
        return len(widths) - 1

    def conv(source: int, width: int) -> int:
        return add(
            Node("conv", (source,), width, int(rng.choice([1, 3])), bool(rng.random() < 0.5), bool(rng.random() < 0.6)),
            width,
        )

    last = conv(0, int(rng.integers(2, 5)))
    safe = [
        "conv",
        "conv",
        "conv",
        "activation",
        "activation",
        "add",
        "add",
        "concatenate",
        "depthwise",
        "scale",
        "norm",
    ]
    odd = ["multiply", "pool", "pad", "lower", "roll", "glu", "shuffle", "standardize", "shift", "maximum", "clip"]
    odd += ["attend", "attend", "mix", "gate"]
    for _ in range(rng.integers(4, 10)):
        kind = rng.choice(odd) if rng.random() < 0.15 else rng.choice(safe)
        source = last if rng.random() < 0.7 else int(rng.integers(1, len(widths)))
        width = widths[source]
        if kind == "conv":
            last = conv(source, int(rng.integers(2, 5)))
        elif kind == "activation":
            name = rng.choice(["relu", "relu", "gelu", "silu", "tanh", "sigmoid"])
            last = add(Node(kind, (source,), name=str(name)), width)
        elif kind == "attend":
            last = add(Node(kind, (source,), 4), 4)
        elif kind == "mix":
            last = add(Node(kind, (source,), 3, bias=bool(rng.random() < 0.5)), width)
        elif kind == "gate":
            excited = add(Node("activation", (conv(source, width),), name="sigmoid"), width)
            last = add(Node("multiply", (source, excited)), width)
        elif kind in ("add", "multiply", "maximum"):
            same = [i for i in range(1, len(widths)) if widths[i] == width and i != source]
            new = not same or rng.random() < 0.4
            other = conv(int(rng.integers(len(widths))), width) if new else int(rng.choice(same))
            last = add(Node(str(kind), (source, other)), width)
        elif kind == "concatenate":
            other = int(rng.integers(1, len(widths)))
            last = add(Node(kind, (source, other)), width + widths[other])
        elif kind in ("glu", "shuffle"):
            if width % 2 == 0 and width > 2:
                last = add(Node(str(kind), (source,)), width // 2 if kind == "glu" else width)
        else:
            last = add(Node(str(kind), (source,), bias=bool(rng.random() < 0.6)), width)
    return Dag(tuple(nodes), bool(rng.random() < 0.3))
