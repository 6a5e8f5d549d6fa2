"""The multiply-adds of a network's kernels for one image, dense and under a mask.

They are counted from the shapes of the layers' outputs: a kernel's weight is used once at each position of the output
(a pixel, a token, or the single position of a dense layer on features). Padding counts as pixels do. Operations without
kernels are left out: attention's products of activations, pooling, activation functions, biases and normalization.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpns_jax import trees
from vpns_jax.analysis.density import Layer
from vpns_jax.models import initializing


@dataclass(frozen=True)
class Kernel:
    """A parameter named `kernel`: its "/"-joined path, its number of weights, and how often each weight is used."""

    path: str
    size: int
    positions: int


@functools.cache
def kernels(model: nn.Module, *, image_size: int) -> tuple[Kernel, ...]:
    """All kernels of a network, found by tracing it; nothing is computed.

    Args:
      model: a Linen module that takes float `[b, image_size, image_size, 3]`. If its parameters have other paths than
        its layers, its method `renamed` says which.
      image_size: side of the images in pixels.

    Returns:
      The kernels, in the order of their first use.
    """
    positions: dict[str, int] = {}
    renamed: Callable[[str], str] = getattr(model, "renamed", str)

    def count(
        call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: nn.module.InterceptorContext
    ) -> Any:
        out, module = call(*args, **kwargs), context.module
        if context.method_name == "__call__" and module.has_variable("params", "kernel"):
            path = renamed("/".join((*module.path, "kernel")))
            # A layer may be called several times.
            positions[path] = positions.get(path, 0) + _positions(module, (*args, *kwargs.values()), out)
        return out

    # These are kept, and to trace the network alone takes half as long as to trace how it is initialized, too.
    shapes = initializing.shapes(model, image_size=image_size)
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    with nn.intercept_methods(count):
        # As in initialization, all may change, and any random numbers are there.
        apply = functools.partial(model.apply, mutable=True, rngs={"params": jax.random.key(0)})
        jax.eval_shape(apply, shapes, images)
    sizes = {path: math.prod(leaf.shape) for path, leaf in trees.named_leaves(shapes["params"]).items()}
    return tuple(Kernel(path, sizes[path], used) for path, used in positions.items())


def _positions(module: nn.Module, given: tuple[Any, ...], outputs: jax.Array) -> int:
    """How often a layer multiplies its whole kernel for one image."""
    if isinstance(module, nn.ConvTranspose):
        # Each input is spread over the outputs by the whole kernel.
        return math.prod(given[0].shape[1:-1])
    # Attention's projections have two axes of features, heads and what each head has.
    features = getattr(module, "features", 1)
    axes = len(features) if isinstance(features, tuple | list) else 1
    return math.prod(outputs.shape[1 : outputs.ndim - axes])


def multiply_adds(kernels: Iterable[Kernel], layers: Iterable[Layer], *, head: str = "head") -> dict[str, Any]:
    """Multiply-adds of the kernels for one image, dense and under a mask, with and without the head.

    Args:
      kernels: all kernels of the network; those without a mask count as dense.
      layers: how many weights the mask keeps of each kernel with a mask.
      head: the top-level key of the classifier.

    Returns:
      `dense`, `masked`, `dense_without_head` and `masked_without_head`: integers.
    """
    kept = {layer.path: layer.kept for layer in layers}
    kernels = tuple(kernels)
    body = tuple(kernel for kernel in kernels if kernel.path.split("/", 1)[0] != head)
    return {
        "dense": _total(kernels, {}),
        "masked": _total(kernels, kept),
        "dense_without_head": _total(body, {}),
        "masked_without_head": _total(body, kept),
    }


def _total(kernels: tuple[Kernel, ...], kept: Mapping[str, int]) -> int:
    return sum(kernel.positions * kept.get(kernel.path, kernel.size) for kernel in kernels)
