"""Times the same steps here and in PyTorch, in turns on the same device, after a check that the losses are equal.

    python -m benchmarks.vs_torch --model resnet18 --image-size 32 --batch 64

PyTorch's steps are in `benchmarks/torch_step.py`: channels last, fused optimizers, `torch.kthvalue`, autocast for
bfloat16. PyTorch is no dependency of this package: install it by `pip install torch`.
"""

import argparse
import dataclasses
import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from benchmarks.step import CASES, DENSITY, Case, losses, make_batch, make_network, make_variables
from vpns_jax import models, sparsity
from vpns_jax.analysis import flops
from vpns_jax.training.metrics import cross_entropy
from vpns_jax.training.network import forward

if importlib.util.find_spec("torch"):
    import torch

    from benchmarks.torch_networks import NETWORKS
    from benchmarks.torch_step import TorchCase

# Relative tolerances; bfloat16 has eight significant bits.
TOLERANCES = {"float32": 1e-3, "bfloat16": 2e-2}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of the compared steps."""

    model: str
    image_size: int
    batch: int
    dtype: str


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same work here and in PyTorch; `check` has compared the results.

    Attributes:
      ours: our function.
      theirs: PyTorch's function.
      passes: the number of forward and backward passes in it.
      memory: the bytes that each needs, if known.
    """

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    passes: int
    memory: tuple[int | None, int | None] = (None, None)


def check(name: str, ours: Any, theirs: Any, dtype: str) -> None:
    """Raises `AssertionError` unless the losses of all passes are equal.

    Args:
      name: the step's name.
      ours: our losses.
      theirs: PyTorch's losses.
      dtype: the computation's dtype, which decides the tolerance.
    """
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCES[dtype], err_msg=f"{name}: ours and PyTorch's differ")


def step_pair(name: str, variables: dict[str, Any], sizes: Sizes) -> Pair:
    """A step of `benchmarks.step`.

    Args:
      name: a name in `CASES`.
      variables: the network's variables.
      sizes: the sizes.

    Returns:
      The pair.
    """
    ours = Case(name, variables, **dataclasses.asdict(sizes))
    theirs = TorchCase(name, variables, **dataclasses.asdict(sizes))
    # Only the first losses are compared: Adam's first update is of one size for all weights, and where gradients
    # vanish, rounding decides its sign.
    check(name, losses(ours()), [loss.item() for loss in theirs()], sizes.dtype)
    return Pair(ours, _waited(theirs), ours.passes, (ours.bytes(), theirs.bytes()))


def gradient_pair(variables: dict[str, Any], sizes: Sizes) -> Pair:
    """The dense network's loss and its gradient for the weights, without an update."""
    model, size = sizes.model, sizes.image_size
    network = make_network(model, prompted=False, image_size=size, dtype=sizes.dtype)
    images, labels = make_batch(sizes.batch, size)

    def loss(weights: Any, stats: Any) -> tuple[jax.Array, Any]:
        logits, stats = forward(
            network, weights=weights, mask={}, batch_stats=stats, prompt=None, images=images, mapping=None, train=True
        )
        return cross_entropy(logits=logits, labels=labels), stats

    arguments = (variables["params"], variables.get("batch_stats", {}))
    ours = functools.partial(jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*arguments).compile(), *arguments)
    theirs = TorchCase("dense", variables, **dataclasses.asdict(sizes)).gradient
    check("the gradient's loss", ours()[0][0], theirs().item(), sizes.dtype)
    return Pair(ours, _waited(theirs), 1)


def threshold_pair(variables: dict[str, Any], sizes: Sizes) -> Pair:
    """The k-th smallest score."""
    scores = jax.tree.map(jnp.abs, sparsity.scaled_init(models.prunable(variables["params"])))
    pruned = sparsity.pruned_count(scores, DENSITY)
    ours = functools.partial(jax.jit(lambda tree: sparsity.kth_smallest(tree, pruned)).lower(scores).compile(), scores)
    theirs = TorchCase("prune (HYDRA)", variables, **dataclasses.asdict(sizes)).threshold
    check("the threshold", ours(), theirs().item(), "float32")
    return Pair(ours, _waited(theirs), 0)


def pairs(variables: dict[str, Any], sizes: Sizes) -> Iterator[tuple[str, Pair]]:
    """All pairs by name, made one after the other, because together they may not fit the device."""
    yield "forward and backward", gradient_pair(variables, sizes)
    for name in CASES:
        yield name, step_pair(name, variables, sizes)
    yield "threshold", threshold_pair(variables, sizes)


def _waited(function: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def operations(sizes: Sizes) -> int:
    """The floating-point operations of one forward and backward pass for one image, in the network's kernels."""
    network = make_network(sizes.model, prompted=False, image_size=sizes.image_size, dtype=sizes.dtype).model
    # A multiplication and an addition, once in the forward pass and twice in the backward pass.
    kernels = flops.kernels(network, image_size=sizes.image_size)
    return 2 * 3 * sum(kernel.size * kernel.positions for kernel in kernels)


def row(name: str, pair: Pair, sizes: Sizes, a_pass: int, repeats: int) -> dict[str, Any]:
    """Times a pair.

    Args:
      name: the pair's name.
      pair: the pair.
      sizes: the sizes.
      a_pass: see `operations`.
      repeats: how many times each runs.

    Returns:
      A row of the table: times, ratios and rates.
    """
    seconds = measure.interleaved({"ours": pair.ours, "theirs": pair.theirs}, repeats)
    work = pair.passes * sizes.batch * a_pass / 1e12
    ours, theirs = pair.memory
    return {
        "step": name,
        "ms": 1e3 * seconds["ours"],
        "PyTorch, ms": 1e3 * seconds["theirs"],
        "PyTorch / ours": seconds["theirs"] / seconds["ours"],
        "images/s": sizes.batch / seconds["ours"] if pair.passes else None,
        "TFLOP/s": work / seconds["ours"] if pair.passes else None,
        "MB": ours and ours / 1e6,
        "PyTorch, MB": theirs and theirs / 1e6,
    }


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark, prints a table and, with --json, writes a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vs_torch", description=(__doc__ or "").splitlines()[0])
    if not importlib.util.find_spec("torch"):
        sys.exit("PyTorch is not installed, so there is nothing to compare with; run `pip install torch`")
    parser.add_argument("--model", choices=list(NETWORKS), default="resnet18")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dtype", choices=list(TOLERANCES), default="float32")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json")
    chosen = parser.parse_args(arguments)
    # Both need memory on one device.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    sizes = Sizes(chosen.model, chosen.image_size, chosen.batch, chosen.dtype)
    variables, a_pass = make_variables(sizes.model, sizes.image_size), operations(sizes)
    rows = [row(name, pair, sizes, a_pass, chosen.repeats) for name, pair in pairs(variables, sizes)]
    print(measure.table(rows))
    print(measure.facts())
    if chosen.json:
        measure.write_json(chosen.json, "vs_torch", rows)


if __name__ == "__main__":
    main()
