"""The same iterations here and in PyTorch, in turns on the same device, once both have found the same losses.

    python -m benchmarks.vs_torch --model resnet18 --image-size 32 --batch 64

PyTorch's are in `benchmarks/torch_step.py`: channels last, fused optimizers, `torch.kthvalue`, autocast for bfloat16.
It is no dependency: install it beside this package (`pip install torch`).
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
from benchmarks.step import CASES, DENSITY, Case, make_batch, make_network, make_variables
from vpns_jax import models, sparsity
from vpns_jax.analysis import flops
from vpns_jax.training.metrics import cross_entropy
from vpns_jax.training.network import forward

if importlib.util.find_spec("torch"):
    import torch

    from benchmarks.torch_networks import NETWORKS
    from benchmarks.torch_step import TorchCase

# Relative; of bfloat16, whose numbers have eight bits.
TOLERANCES = {"float32": 1e-3, "bfloat16": 2e-2}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What both run."""

    model: str
    image_size: int
    batch: int
    dtype: str


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same work here and there, once `check` has found that it is the same.

    Attributes:
      passes: forward and backward passes in it.
      memory: the bytes that each needs, where known.
    """

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    passes: int
    memory: tuple[int | None, int | None] = (None, None)


def check(name: str, ours: Any, theirs: Any, dtype: str) -> None:
    """That losses are the same, pass by pass."""
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCES[dtype], err_msg=f"{name}: ours and PyTorch's differ")


def step_pair(name: str, variables: dict[str, Any], sizes: Sizes) -> Pair:
    """An iteration of `benchmarks.step`."""
    ours = Case(name, variables, **dataclasses.asdict(sizes))
    theirs = TorchCase(name, variables, **dataclasses.asdict(sizes))
    # The first alone: Adam begins with steps of one size, and rounding decides their sign where gradients vanish.
    check(name, [one.loss for one in ours()], [loss.item() for loss in theirs()], sizes.dtype)
    return Pair(ours, _waited(theirs), ours.passes, (ours.bytes(), theirs.bytes()))


def gradient_pair(variables: dict[str, Any], sizes: Sizes) -> Pair:
    """The dense network's loss and its gradient in the weights, and nothing else."""
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
    """By name, made one after the other: together they may not fit a device."""
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


def row(name: str, pair: Pair, sizes: Sizes, operations: int, repeats: int) -> dict[str, Any]:
    """Times, ratios and rates of one pair; `operations` are those of one pass over one image."""
    seconds = measure.interleaved({"ours": pair.ours, "theirs": pair.theirs}, repeats)
    work = pair.passes * sizes.batch * operations / 1e12
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
    """Prints a table and, if asked to, writes JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vs_torch", description=(__doc__ or "").splitlines()[0])
    if not importlib.util.find_spec("torch"):
        sys.exit("PyTorch is not installed, and there is nothing to compare with; see `pip install torch`")
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
    variables = make_variables(sizes.model, sizes.image_size)
    network = make_network(sizes.model, prompted=False, image_size=sizes.image_size, dtype=sizes.dtype).model
    # A multiply and an add, in the forward pass and twice in the backward one.
    kernels = flops.kernels(network, image_size=sizes.image_size)
    operations = 2 * 3 * sum(kernel.size * kernel.positions for kernel in kernels)
    rows = [row(name, pair, sizes, operations, chosen.repeats) for name, pair in pairs(variables, sizes)]
    print(measure.table(rows))
    print(measure.facts())
    if chosen.json:
        measure.write_json(chosen.json, "vs_torch", rows)


if __name__ == "__main__":
    main()
