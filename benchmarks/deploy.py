"""The size and the latency of a network that was pruned in several ways, in JAX and in ONNX Runtime.

    python -m benchmarks.deploy --model resnet18 --image-size 224 --batch 1 32

All networks have random weights and the paper's prompt. `weights masked` keeps a random tenth of the weights. `shrunk`
lost random channels until the target was reached, as `config.target` prunes them, and was cut by `deploy.shrink`; the
row below it costs as much with rounded widths. `narrow` does with the same share of channels in all layers.
What is timed is a batch from uint8 pixels to probabilities, in turns; `times as fast` is the median of the ratios to
the dense network in the same turn.
"""

import argparse
import dataclasses
import functools
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnxruntime

from benchmarks import measure
from benchmarks.step import frame_width
from vpns_jax import deploy, models, prompting, sparsity, trees
from vpns_jax.deploy import Classifier, Description
from vpns_jax.deploy.exports import onnx_model, packed
from vpns_jax.experiment import target
from vpns_jax.models import initializing
from vpns_jax.training.network import Subnetwork

CLASSES, DENSITY, ROUND_TO = 10, 0.1, 8
DENSE, MASKED, SHRUNK, ROUNDED, NARROW = (
    "dense",
    "weights masked",
    "shrunk",
    f"shrunk, multiples of {ROUND_TO}",
    "narrow",
)


RUNTIMES = ("JAX", "ONNX Runtime")


def networks(model: str, image_size: int, share: float) -> dict[str, Classifier]:
    """The compared networks.

    Args:
      model: the network's name.
      image_size: side of the images in pixels.
      share: of the dense network's multiply-adds.

    Returns:
      The networks by name; the dense network is the first.
    """
    dense = classifier(model, image_size)
    return {
        DENSE: dense,
        MASKED: masked(dense, weight_mask(dense)),
        SHRUNK: deploy.shrink(masked(dense, channel_mask(dense, share))),
        ROUNDED: deploy.shrink(masked(dense, channel_mask(dense, share, ROUND_TO)), round_to=ROUND_TO),
        NARROW: classifier(model, image_size, widths=narrow_widths(dense, share)),
    }


def classifier(model: str, image_size: int, **options: Any) -> Classifier:
    """A dense network with random weights and a prompt.

    Args:
      model: the network's name.
      image_size: side of the images in pixels.
      **options: of the model.
    """
    prompt = prompting.create("pad", canvas_size=image_size, pad_size=frame_width(image_size))
    mean, std = models.normalization(model)
    names = tuple(f"class {i}" for i in range(CLASSES))
    description = Description(model, prompt, image_size, mean, std, names, options)
    shapes = initializing.shapes(description.network(CLASSES).model, image_size=image_size)
    rng = np.random.default_rng(0)
    variables = trees.unflatten({path: _draw(path, leaf, rng) for path, leaf in trees.flatten(shapes).items()})
    variables = jax.device_put(variables)
    stats, mapping = variables.get("batch_stats", {}), jax.device_put(np.arange(CLASSES, dtype=np.int32))
    return Classifier(description, Subnetwork(variables["params"], {}, stats, prompt.init(), mapping))


def _draw(path: str, shape: Any, rng: np.random.Generator) -> np.ndarray:
    """Weights that keep the size of activations, so that no network ends in zeros or infinities."""
    if path.endswith("kernel"):
        fan_in = math.prod(shape.shape[:-1])
        return (rng.standard_normal(shape.shape, np.float32) * np.sqrt(2 / fan_in)).astype(np.float32)
    if path.endswith(("scale", "var")):
        return np.ones(shape.shape, shape.dtype)
    return (0.1 * rng.standard_normal(shape.shape)).astype(shape.dtype)


def masked(dense: Classifier, mask: Any) -> Classifier:
    """The network with a mask."""
    return dataclasses.replace(dense, subnetwork=dataclasses.replace(dense.subnetwork, mask=mask))


def weight_mask(dense: Classifier) -> Any:
    """A mask that keeps about a tenth of all weights, drawn at random."""
    return jax.tree.map(lambda score: score < DENSITY, _uniform(models.prunable(dense.subnetwork.weights)))


def channel_mask(dense: Classifier, share: float, round_to: int = 1) -> Any:
    """A mask of random channels, chosen as `config.target` chooses them.

    Args:
      dense: the network.
      share: of the multiply-adds that are left, at most, when the masked channels are cut out.
      round_to: what the widths are rounded up to then.

    Returns:
      The mask.
    """
    model, weights = dense.network.model, dense.subnetwork.weights
    free, terms = _free(dense), _terms(dense)
    pattern = sparsity.BudgetPattern(channels=models.channels(model), terms=terms, target="macs")
    paths = {path for channels in free for path in channels.kernels}
    kernels = trees.unflatten({path: leaf for path, leaf in trees.flatten(weights).items() if path in paths})
    scores, steps = _uniform(pattern.scored(kernels)), {each.name: _step(each, round_to) for each in free}
    for less in np.arange(share, 0, -0.005):
        keep = pattern.select(scores, pattern.amount(kernels, float(less)))
        kept = {name: (_round_up(leaf, steps[name]), leaf.size) for name, leaf in trees.flatten(keep).items()}
        if sparsity.cost(terms, kept) <= share * sparsity.cost(terms, {}):
            break
    return jax.jit(lambda keep: pattern.mask(keep, weights))(keep)


def _step(channels: models.Channels, round_to: int) -> int:
    """How many units of channels there must be a multiple of, as in `models.shrink`."""
    return round_to // math.gcd(round_to, channels.width)


def _round_up(keep: Any, step: int) -> int:
    return min(-(-int(keep.sum()) // step) * step, keep.size)


def narrow_widths(dense: Classifier, share: float) -> dict[str, int]:
    """Widths with the same share of channels in all layers, that leave at most a share of the multiply-adds."""
    leaves, terms, free = trees.flatten(dense.subnetwork.weights), _terms(dense), _free(dense)
    units = {channels.name: leaves[channels.name].shape[-1] // channels.width for channels in free}

    def kept(of_each: float) -> dict[str, tuple[int, int]]:
        return {name: (math.ceil(of_each * count), count) for name, count in units.items()}

    most = share * sparsity.cost(terms, {})
    of_each = max(x for x in np.linspace(0.01, 1, 1000) if sparsity.cost(terms, kept(x)) <= most)
    width = {channels.name: channels.width for channels in free}
    return {name.removesuffix("/kernel"): width[name] * count for name, (count, _) in kept(of_each).items()}


def _free(dense: Classifier) -> list[models.Channels]:
    return [channels for channels in models.channels(dense.network.model) if not channels.fixed]


def _terms(dense: Classifier) -> tuple[sparsity.Term, ...]:
    return target.terms("macs", dense.network.model, image_size=dense.description.input_size)


def _uniform(tree: Any) -> Any:
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), tree)


def times(compared: Mapping[str, Classifier], batch: int, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Times a batch of images in both runtimes, the networks in turns.

    Args:
      compared: the networks by name.
      batch: images in a batch.
      repeats: how many times each runs.

    Returns:
      By runtime and network, the seconds of each turn.
    """
    side = next(iter(compared.values())).description.image_size
    images = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
    in_jax = {name: functools.partial(each.probabilities, list(images), None, batch) for name, each in compared.items()}
    in_onnx = {name: in_onnx_runtime(each, images) for name, each in compared.items()}
    for name in compared:
        check(name, in_jax[name](), in_onnx[name]())
    # One runtime after the other, because idle threads of the one spin for a while and would disturb the other.
    return dict(zip(RUNTIMES, (measure.turns(in_jax, repeats), measure.turns(in_onnx, repeats)), strict=True))


def check(name: str, in_jax: np.ndarray, in_onnx: np.ndarray) -> None:
    """Raises `AssertionError` unless both runtimes computed the same.

    Args:
      name: the network's name.
      in_jax: the probabilities from JAX.
      in_onnx: the probabilities from ONNX Runtime.
    """
    np.testing.assert_allclose(in_onnx, in_jax, atol=1e-4, err_msg=f"{name}: JAX and ONNX Runtime differ")


def in_onnx_runtime(network: Classifier, images: np.ndarray) -> Callable[[], np.ndarray]:
    """Runs a network in ONNX Runtime.

    Args:
      network: the network.
      images: uint8 [b, side, side, 3].

    Returns:
      A function that computes the images' probabilities.
    """
    content = onnx_model.build(network).SerializeToString()
    options = onnxruntime.SessionOptions()
    # By default it has a thread for each core of the machine, even where `taskset` allows fewer cores.
    options.intra_op_num_threads = measure.cores()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["probabilities"], {"images": images})[0]


def size(network: Classifier) -> dict[str, float]:
    """The columns of a network that need no clock.

    Args:
      network: the network.

    Returns:
      Megabytes of the two files of `deploy.save`, packed and as an ONNX file; millions of parameters and multiply-adds.
    """
    counted = deploy.size_of(network)
    with tempfile.TemporaryDirectory() as folder:
        deploy.save(Path(folder) / "network", network)
        written = sum(path.stat().st_size for path in Path(folder).iterdir())
        small = Path(folder) / f"network{packed.SUFFIX}"
        packed.write(network, small, dtype="float32")
        packed_size = small.stat().st_size
    return {
        "MB": written / 1e6,
        "packed, MB": packed_size / 1e6,
        "ONNX, MB": onnx_model.build(network).ByteSize() / 1e6,
        "M parameters": counted.parameters / 1e6,
        "M multiply-adds": counted.multiply_adds / 1e6,
    }


def rows(compared: Mapping[str, Classifier], batches: list[int], repeats: int) -> list[dict[str, Any]]:
    """Measures networks.

    Args:
      compared: the networks by name; the first one is what others are compared with.
      batches: images in a batch.
      repeats: how many times each runs.

    Returns:
      A row of the table for each network.
    """
    table: dict[str, dict[str, Any]] = {name: {"network": name, **size(each)} for name, each in compared.items()}
    first = next(iter(compared))
    for batch in batches:
        for runtime, seconds in times(compared, batch, repeats).items():
            for name, taken in seconds.items():
                ratios = [before / after for before, after in zip(seconds[first], taken, strict=True)]
                table[name] |= {
                    column(runtime, batch, "ms"): 1e3 * statistics.median(taken),
                    column(runtime, batch, "times as fast"): statistics.median(ratios),
                }
    return list(table.values())


def column(runtime: str, batch: int, what: str) -> str:
    """The heading of a column of times.

    Args:
      runtime: one of `RUNTIMES`.
      batch: images in a batch.
      what: "ms" or "times as fast".
    """
    return f"{runtime} {batch}, {what}"


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark, prints a table and, with --json, writes a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deploy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=models.accepted_names(), default="resnet18")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--share", type=float, default=0.5, help="of the dense network's multiply-adds")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json")
    chosen = parser.parse_args(arguments)
    table = rows(networks(chosen.model, chosen.image_size, chosen.share), chosen.batch, chosen.repeats)
    print(measure.table(table))
    print(measure.facts())
    if chosen.json:
        measure.write_json(chosen.json, "deploy", table)


if __name__ == "__main__":
    main()
