"""The cost of learning a mask and a prompt, compared with fine-tuning the dense network: time and memory a step.

    python -m benchmarks.step --model resnet18 --image-size 32 --batch 64

All steps run in turns on the same images. `as dense` is a step's time over the dense step's; the released code's
protocol has two passes, so it is compared with two dense steps. Dense networks are fine-tuned with SGD, as in the
paper's retraining, and with Adam, which learns the scores: the difference of the two is the optimizer's cost.
"""

import argparse
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from vpns_jax import models, prompting, sparsity
from vpns_jax.training import passes
from vpns_jax.training.batches import Batch
from vpns_jax.training.metrics import Metrics
from vpns_jax.training.network import Network, Subnetwork
from vpns_jax.training.optimizers import Optimizer
from vpns_jax.training.passes import Stage
from vpns_jax.training.stage import Recipe, learn_scores, learn_weights
from vpns_jax.training.state import Groups, TrainState

CLASSES, DENSITY, EPOCHS, ITERATIONS = 10, 0.1, 30, 1000
OPTIMIZERS = {
    name: Optimizer(
        name, rate, momentum=momentum, weight_decay=1e-4, decay="coupled", schedule="cosine_epochs", warmup_epochs=0.0
    )
    for name, rate, momentum in (("adam", 1e-4, 0.0), ("sgd", 0.01, 0.9))
}


class Kind(NamedTuple):
    """A kind of step: what it learns, its protocol, whether there is a prompt and a mask, and its optimizer."""

    learns: str
    protocol: str
    prompted: bool
    masked: bool
    optimizer: str


CASES = {
    "dense": Kind("weights", "paper", prompted=False, masked=False, optimizer="sgd"),
    "dense, Adam": Kind("weights", "paper", prompted=False, masked=False, optimizer="adam"),
    "retrain, masked": Kind("weights", "paper", prompted=False, masked=True, optimizer="sgd"),
    "retrain, masked, prompt": Kind("weights", "paper", prompted=True, masked=True, optimizer="sgd"),
    "prune (HYDRA)": Kind("scores", "paper", prompted=False, masked=True, optimizer="adam"),
    "prune (VPNs)": Kind("scores", "paper", prompted=True, masked=True, optimizer="adam"),
    "prune (VPNs, reference)": Kind("scores", "reference", prompted=True, masked=True, optimizer="adam"),
}


class Case:
    """A compiled step with its state, which each call updates in place."""

    def __init__(
        self, name: str, variables: dict[str, Any], *, model: str, image_size: int, batch: int, dtype: str
    ) -> None:
        stages = []

        def begin(variables: dict[str, Any]) -> TrainState:
            stage, state = start(name, variables, model=model, image_size=image_size, batch=batch, dtype=dtype)
            stages.append(stage)
            return state

        # One program: the first state has arrays of many shapes, and each would compile small programs of its own.
        state = jax.jit(begin)(variables)
        (stage,) = stages
        self._state = dataclasses.replace(state, frozen={})
        batches = (make_batch(batch, image_size),) * len(stage.passes)
        self._rest = (state.frozen, batches, jax.random.key(0))
        compiled: Any = STEP.lower(stage, self._state, *self._rest).compile()
        self._step, self.passes = compiled, len(stage.passes)

    def __call__(self) -> Any:
        """Runs the step, and returns its metrics."""
        self._state, metrics = self._step(self._state, *self._rest)
        return metrics

    def bytes(self) -> int:
        """The bytes of arguments, of outputs that are not arguments, and of temporary arrays, as XLA reports them."""
        memory = self._step.memory_analysis()
        fresh_outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
        return memory.argument_size_in_bytes + fresh_outputs + memory.temp_size_in_bytes


def iteration(
    stage: Stage, state: TrainState, frozen: Groups, batches: tuple[Batch, ...], rng: jax.Array
) -> tuple[TrainState, tuple[Metrics, ...]]:
    """`passes.iterate` with the frozen arrays as a separate argument, so that the others can be donated.

    Args:
      stage: the stage.
      state: its state, without frozen arrays.
      frozen: the frozen arrays.
      batches: a batch for each pass.
      rng: a random key.

    Returns:
      The new state, without frozen arrays, and the metrics of each pass.
    """
    state, metrics = passes.iterate(stage, dataclasses.replace(state, frozen=frozen), batches, rng)
    return dataclasses.replace(state, frozen={}), metrics


def losses(metrics: tuple[Metrics, ...]) -> list[float]:
    """The mean loss of each pass."""
    return [float(seen.loss.compute()) for seen in metrics]


STEP = jax.jit(iteration, static_argnums=0, donate_argnums=1)


def start(
    name: str, variables: dict[str, Any], *, model: str, image_size: int, batch: int, dtype: str
) -> tuple[Stage, TrainState]:
    """A stage and its first state, with the paper's learning rates and decay.

    Args:
      name: a name in `CASES`.
      variables: the network's variables.
      model: the network's name.
      image_size: side of the images in pixels.
      batch: images in a batch.
      dtype: the computation's dtype.

    Returns:
      The stage and its state.
    """
    kind = CASES[name]
    network = make_network(model, prompted=kind.prompted, image_size=image_size, dtype=dtype)
    kernels = models.prunable(variables["params"])
    scores, pruned = sparsity.scaled_init(kernels), jnp.int32(sparsity.pruned_count(kernels, DENSITY))
    begin = Subnetwork(
        weights=variables["params"],
        mask=sparsity.prune_smallest(scores, pruned) if kind.masked and kind.learns == "weights" else {},
        batch_stats=variables.get("batch_stats", {}),
        prompt=network.prompt.init(),
        mapping=jnp.arange(CLASSES),
    )
    optimizers = dict.fromkeys((kind.learns, "prompt"), OPTIMIZERS[kind.optimizer])
    recipe = Recipe(kind.protocol, batch, EPOCHS, optimizers)
    if kind.learns == "weights":
        return learn_weights(network, begin, recipe, ITERATIONS)
    pattern = sparsity.Pattern()
    return learn_scores(network, begin, scores, recipe, ITERATIONS, pruned=pruned, pattern=pattern)


def frame_width(image_size: int) -> int:
    """The width of the prompt's frame in pixels; at 224 px it is the paper's, 16."""
    return max(1, image_size // 14)


def make_network(model: str, *, prompted: bool, image_size: int, dtype: str) -> Network:
    """A network without dropout.

    Args:
      model: the network's name.
      prompted: whether it has the paper's prompt.
      image_size: side of the images in pixels.
      dtype: the computation's dtype.

    Returns:
      The network.
    """
    still = {"dropout": 0.0} if "dropout" in models.options(model) else {}
    blank = prompting.create("none", canvas_size=image_size)
    pad = prompting.create("pad", canvas_size=image_size, pad_size=frame_width(image_size))
    mean, std = models.normalization(model)
    module = models.create(model, num_classes=CLASSES, dtype=dtype, **still)
    return Network(module, pad if prompted else blank, blank, mean, std)


def make_variables(model: str, image_size: int) -> dict[str, Any]:
    """Fresh variables of a network."""
    images = jnp.zeros((1, image_size, image_size, 3))
    return jax.jit(models.create(model, num_classes=CLASSES).init)(jax.random.key(0), images)


def make_batch(batch: int, image_size: int) -> Batch:
    """A batch of noise, with the labels 0, 1, 2 and so on."""
    images = np.random.default_rng(0).integers(0, 256, (batch, image_size, image_size, 3))
    return jnp.asarray(images, jnp.uint8), jnp.arange(batch) % CLASSES


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark, prints a table and, with --json, writes a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=models.names(), default="resnet18")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json")
    chosen = parser.parse_args(arguments)
    sizes = {key: getattr(chosen, key) for key in ("model", "image_size", "batch", "dtype")}
    variables = make_variables(chosen.model, chosen.image_size)
    cases = {name: Case(name, variables, **sizes) for name in CASES}
    seconds = measure.interleaved(cases, chosen.repeats)
    rows = [
        {
            "step": name,
            "ms": 1e3 * seconds[name],
            "as dense": seconds[name] / (case.passes * seconds["dense"]),
            "MB": case.bytes() / 1e6,
            "memory as dense": case.bytes() / cases["dense"].bytes(),
        }
        for name, case in cases.items()
    ]
    print(measure.table(rows))
    print(measure.facts())
    if chosen.json:
        measure.write_json(chosen.json, "step", rows)


if __name__ == "__main__":
    main()
