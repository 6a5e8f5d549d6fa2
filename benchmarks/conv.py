"""Times every convolution of a network with our `conv2d` and with XLA's convolution: forward, and with both gradients.

    python -m benchmarks.conv --model resnet18 --image-size 32 --batch 64

On CPUs `conv2d` chooses an algorithm by the shapes; on accelerators it is XLA's convolution. PyTorch's convolution is
timed, too, if PyTorch is installed.
"""

import argparse
import dataclasses
import functools
import importlib.util
from collections import Counter
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from vpns_jax import models
from vpns_jax.models.cpu import conv, depthwise

OURS, XLA, TORCH = "conv2d", "lax", "PyTorch"


@dataclasses.dataclass(frozen=True)
class Shape:
    """The shape of a convolution of images `[batch, size, size, channels]`, depthwise or not."""

    size: int
    channels: int
    features: int
    kernel: int
    stride: int
    padding: int
    depthwise: bool = False

    def __str__(self) -> str:
        channels = f"each of {self.channels}" if self.depthwise else f"{self.channels} to {self.features}"
        return f"{self.size} px, {channels}, {self.kernel}x{self.kernel} / {self.stride}"

    @property
    def geometry(self) -> dict[str, int]:
        """Stride and padding, as the functions here take them: depthwise convolutions have no stride."""
        return {"padding": self.padding} | ({} if self.depthwise else {"stride": self.stride})


def shapes(model: str, image_size: int) -> Counter[Shape]:
    """The number of convolutions of each shape in a network, found by tracing it."""
    counts: Counter[Shape] = Counter()

    def note(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: Any) -> Any:
        layer = context.module
        if isinstance(layer, conv.Conv) and context.method_name == "__call__":
            _, size, _, channels = args[0].shape
            counts[Shape(size, channels, layer.features, layer.kernel_size, layer.stride, layer.padding)] += 1
        if isinstance(layer, depthwise.DepthwiseConv) and context.method_name == "__call__":
            _, size, _, channels = args[0].shape
            counts[Shape(size, channels, channels, layer.kernel_size, 1, layer.padding, depthwise=True)] += 1
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        images = jnp.zeros((1, image_size, image_size, 3))
        jax.eval_shape(models.create(model).init, jax.random.key(0), images)
    return counts


def contenders(shape: Shape, batch: int, *, backward: bool) -> dict[str, Callable[[], Any]]:
    """The compared functions, compiled.

    Args:
      shape: the convolution's shape.
      batch: images in a batch.
      backward: whether gradients are computed, too: those of a sum of the outputs with random weights.

    Returns:
      Functions by name.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, shape.size, shape.size, shape.channels), np.float32)
    inputs = 1 if shape.depthwise else shape.channels
    kernel = rng.standard_normal((shape.kernel, shape.kernel, inputs, shape.features), np.float32)
    kernel /= np.sqrt(np.prod(kernel.shape[:3]))
    geometry = shape.geometry
    size_out = (shape.size + 2 * shape.padding - shape.kernel) // shape.stride + 1
    cotangent = rng.standard_normal((batch, size_out, size_out, shape.features), np.float32)

    def compiled(convolve: Callable[..., jax.Array]) -> Callable[[], Any]:
        def run(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
            if not backward:
                return (convolve(x, kernel, **geometry),)
            y, pull = jax.vjp(functools.partial(convolve, **geometry), x, kernel)
            return y, *pull(cotangent)

        arguments = jax.device_put((x, kernel, cotangent))
        return functools.partial(jax.jit(run).lower(*arguments).compile(), *arguments)

    if shape.depthwise:
        functions = {OURS: compiled(depthwise.depthwise_conv2d), XLA: compiled(depthwise.lax_depthwise_conv2d)}
    else:
        functions = {OURS: compiled(conv.conv2d), XLA: compiled(conv.lax_conv2d)}
    if importlib.util.find_spec("torch"):
        functions[TORCH] = _torch(
            x, kernel, cotangent, geometry | {"groups": shape.channels // inputs}, backward=backward
        )
    return functions


def _torch(
    x: np.ndarray, kernel: np.ndarray, cotangent: np.ndarray, geometry: dict[str, int], *, backward: bool
) -> Callable[[], Any]:
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # As [b, c, h, w] these have the memory layout "channels last", which is fast in PyTorch.
    images, down = (torch.from_numpy(array).to(device).permute(0, 3, 1, 2) for array in (x, cotangent))
    weights = torch.from_numpy(kernel).to(device).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    images, weights = images.requires_grad_(backward), weights.requires_grad_(backward)

    def run() -> tuple[np.ndarray, ...]:
        y = torch.nn.functional.conv2d(images, weights, **geometry)
        gradients = torch.autograd.grad(y, (images, weights), down) if backward else ()
        if device.type == "cuda":
            torch.cuda.synchronize()
        back = [g.permute(*axes) for g, axes in zip(gradients, _BACK, strict=False)]
        return y.detach().permute(0, 2, 3, 1), *back

    return run


_BACK = ((0, 2, 3, 1), (2, 3, 1, 0))


def check(shape: Shape, results: dict[str, Any]) -> None:
    """Raises `AssertionError` unless all results agree, up to 1e-4 of the largest number."""
    for name, values in results.items():
        for reference, value in zip(results[XLA], values, strict=True):
            expected, actual = np.asarray(reference), np.asarray(value.cpu() if name == TORCH else value)
            if not np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max():
                raise AssertionError(f"{shape}: {name} and {XLA} differ by {np.abs(actual - expected).max()}")


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark, prints a table and, with --json, writes a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conv", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=models.accepted_names(), default="resnet18")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json")
    chosen = parser.parse_args(arguments)
    rows = []
    for shape, count in shapes(chosen.model, chosen.image_size).items():
        row: dict[str, Any] = {"convolution": str(shape), "layers": count}
        for what, backward in (("forward", False), ("with gradients", True)):
            functions = contenders(shape, chosen.batch, backward=backward)
            check(shape, {name: function() for name, function in functions.items()})
            seconds = measure.interleaved(functions, chosen.repeats)
            row |= {f"{name}, {what}, ms": 1e3 * s for name, s in seconds.items()}
        rows.append(row)
    print(measure.table(rows))
    print(measure.facts())
    if chosen.json:
        measure.write_json(chosen.json, "conv", rows)


if __name__ == "__main__":
    main()
