"""Times the exact threshold and mask of a tree of scores, compared with other ways to compute the same threshold.

    python -m benchmarks.selection [--sizes 1.3M 11.7M ...] [--repeats N] [--json PATH]

The other ways get the scores as one flat array, and the time to make it is not counted. PyTorch takes part if it is
installed. All must find the same number, bit for bit. A tenth of the weights is kept.
"""

import argparse
import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from vpns_jax import models, sparsity
from vpns_jax.sparsity import selection
from vpns_jax.sparsity.selection import counting, search

PyTree = Any
Shapes = list[tuple[int, ...]]

DENSITY = 0.1
OURS, READ = "kth_smallest", "reading once"
# Ways to search and to count, of which `kth_smallest` takes the one that suits the platform.
WAYS: dict[str, selection.Search] = {
    "bisection, counted apart": search.bisection,
    "bisection, by rows": search.bisection_by_rows,
    "bisection, together": functools.partial(search.bisection, count=counting.count_together),
    "interpolation, together": search.interpolation,
}


def prunable_shapes(name: str) -> Shapes:
    """The shapes of a backbone's prunable weights."""
    variables = jax.eval_shape(models.create(name).init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    return [leaf.shape for leaf in jax.tree.leaves(models.prunable(variables["params"]))]


def thin(shapes: Shapes) -> Shapes:
    """Shapes with a third of the channels."""
    return [tuple(size // 3 if size >= 64 else size for size in shape) for shape in shapes]


TREES: dict[str, tuple[str, Callable[[], Shapes]]] = {
    "1.3M": ("ResNet-18, a third as wide", lambda: thin(prunable_shapes("resnet18"))),
    "11.7M": ("ResNet-18", lambda: prunable_shapes("resnet18")),
    "25M": ("ResNet-50", lambda: prunable_shapes("resnet50")),
    "86M": ("ViT-B/16", lambda: prunable_shapes("vit_b16")),
    "138M": ("VGG-16", lambda: prunable_shapes("vgg16")),
}


def draw(shapes: Shapes) -> list[np.ndarray]:
    """Draws magnitudes of initial scores: |normal| numbers, scaled by fan-in."""
    rng = np.random.default_rng(0)
    return [
        np.abs(rng.standard_normal(shape, np.float32)) * np.float32(math.sqrt(2 / math.prod(shape[:-1])))
        for shape in shapes
    ]


def contenders(scores: list[np.ndarray]) -> dict[str, Callable[[], Any]]:
    """The compared functions by name, compiled at the first call. They return the threshold; `topk_mask` a mask."""
    tree, flat = jax.device_put(scores), np.concatenate([leaf.ravel() for leaf in scores])
    on_device, k = jnp.asarray(flat), sparsity.pruned_count(scores, DENSITY)
    kept = flat.size - k

    def compiled(function: Callable[..., Any], argument: PyTree) -> Callable[[], Any]:
        return functools.partial(jax.jit(function), argument)

    functions = {
        OURS: compiled(lambda tree: sparsity.kth_smallest(tree, k), tree),
        "topk_mask": compiled(lambda tree: sparsity.topk_mask(tree, DENSITY), tree),
        "numpy.partition": lambda: np.partition(flat, k - 1)[k - 1],
    }
    if importlib.util.find_spec("torch"):
        import torch

        theirs = torch.from_numpy(flat).to("cuda" if torch.cuda.is_available() else "cpu")
        functions["torch.kthvalue"] = lambda: torch.kthvalue(theirs, k).values.cpu().numpy()
    functions["jnp.sort"] = compiled(lambda flat: jnp.sort(flat)[k - 1], on_device)
    # The threshold is the largest pruned score, the next after those that are kept.
    functions["lax.top_k"] = compiled(lambda flat: jax.lax.top_k(flat, kept + 1)[0][-1], on_device)
    return functions


def ways(scores: list[np.ndarray]) -> dict[str, Callable[[], Any]]:
    """The ways to search for the threshold by name; and reading all scores once, which none can be below."""
    tree, k = jax.device_put(scores), jnp.int32(sparsity.pruned_count(scores, DENSITY))

    def compiled(way: selection.Search) -> Callable[[], Any]:
        def threshold(tree: PyTree, k: jax.Array) -> jax.Array:
            return selection.key_to_float(selection.kth_smallest_key(tree, k, way)[0], jnp.float32.dtype)

        return functools.partial(jax.jit(threshold), tree, k)

    flat = jnp.concatenate([leaf.ravel() for leaf in tree])
    return {
        READ: functools.partial(jax.jit(jnp.max), flat),
        **{name: compiled(way) for name, way in WAYS.items()},
    }


def check(results: dict[str, Any], scores: list[np.ndarray]) -> None:
    """Raises `AssertionError` unless all thresholds are bit-equal and the mask keeps the right number of weights."""
    flat = np.concatenate([leaf.ravel() for leaf in scores])
    k = sparsity.pruned_count(scores, DENSITY)
    expected = np.partition(flat, k - 1)[k - 1]
    for name, value in results.items():
        if name == READ:
            continue
        if name == "topk_mask":
            kept = sum(int(np.count_nonzero(leaf)) for leaf in value)
            if kept != flat.size - k:
                raise AssertionError(f"topk_mask keeps {kept} of {flat.size}, not {flat.size - k}")
        elif np.asarray(value).tobytes() != expected.tobytes():
            raise AssertionError(f"{name} found {value}, not {expected}")


def compare(shapes: Shapes, repeats: int) -> dict[str, float]:
    """Times all contenders on one tree of scores, and checks their results; returns seconds by name."""
    scores, results = draw(shapes), {}

    def remembered(name: str, function: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            results[name] = function()
            return results[name]

        return run

    functions = {name: remembered(name, function) for name, function in contenders(scores).items()}
    seconds = measure.interleaved(functions, repeats)
    check(results, scores)
    return seconds


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark, prints a table and, with --json, writes a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selection", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=list(TREES), default=list(TREES))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json")
    chosen = parser.parse_args(arguments)
    rows = []
    for size in chosen.sizes:
        name, shapes = TREES[size]
        seconds = compare(shapes(), chosen.repeats)
        rows.append({"scores": size, "tree": name} | {f"{name}, ms": 1e3 * s for name, s in seconds.items()})
        ratios = ", ".join(f"{name} {s / seconds[OURS]:.1f}" for name, s in seconds.items())
        print(f"{size}: as multiples of {OURS}: {ratios}", flush=True)
    print(measure.table(rows))
    print(measure.facts())
    if chosen.json:
        measure.write_json(chosen.json, "selection", rows)


if __name__ == "__main__":
    main()
