"""How much a network computes: the multiply-adds of its kernels for one image, dense and under a mask.

Counted from the shapes of layers' outputs: a weight of a kernel is used once at each position of the output (a pixel,
a token, or the one of a dense layer on features). Zeros around an image count as pixels do. What has no weights is left
out: attention's own products, pooling, activations; and so are biases and normalisation.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpns_jax.analysis.density import Layer


@dataclass(frozen=True)
class Kernel:
    """A kernel called `kernel`: its `path` joined by "/", its number of weights, and of positions that use each."""

    path: str
    size: int
    positions: int


@functools.cache
def kernels(model: nn.Module, *, image_size: int) -> tuple[Kernel, ...]:
    """Every kernel of a Linen module that is called with float [b, image_size, image_size, 3].

    Nothing is computed: the network is only traced.
    """
    positions: dict[str, int] = {}

    def count(
        call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: nn.module.InterceptorContext
    ) -> Any:
        out, module = call(*args, **kwargs), context.module
        if context.method_name == "__call__" and module.has_variable("params", "kernel"):
            path = "/".join((*module.path, "kernel"))
            # A layer that is called again is used again.
            positions[path] = positions.get(path, 0) + math.prod(out.shape[1:-1])
        return out

    with nn.intercept_methods(count):
        images = jnp.zeros((1, image_size, image_size, 3))
        shapes: Any = jax.eval_shape(model.init, jax.random.key(0), images)
    leaves, _ = jax.tree_util.tree_flatten_with_path(shapes["params"])
    sizes = {jax.tree_util.keystr(path, simple=True, separator="/"): math.prod(leaf.shape) for path, leaf in leaves}
    return tuple(Kernel(path, sizes[path], used) for path, used in positions.items())


def multiply_adds(found: Iterable[Kernel], layers: Iterable[Layer], *, head: str = "head") -> dict[str, Any]:
    """Multiply-adds of the kernels for one image, dense and under a mask, with and without the head.

    Args:
      found: all kernels of the network; those that the mask does not name count whole.
      layers: what a mask keeps of those it names.
      head: the top-level key under which the classifier lies.

    Returns:
      `dense`, `masked`, `dense_without_head` and `masked_without_head`: whole numbers.
    """
    kept = {layer.path: layer.kept for layer in layers}
    found = tuple(found)
    body = tuple(kernel for kernel in found if kernel.path.split("/", 1)[0] != head)
    return {
        "dense": _total(found, {}),
        "masked": _total(found, kept),
        "dense_without_head": _total(body, {}),
        "masked_without_head": _total(body, kept),
    }


def _total(found: tuple[Kernel, ...], kept: Mapping[str, int]) -> int:
    return sum(kernel.positions * kept.get(kernel.path, kernel.size) for kernel in found)
