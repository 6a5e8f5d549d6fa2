"""The cost of learning a mask and a prompt, compared with fine-tuning the dense network: time and memory a step.

    python -m benchmarks.step --model resnet18 --image-size 32 --batch 64
    python -m benchmarks.step --model resnet18 --image-size 32 --batch 64 --own-loop

All steps run in turns on the same images. `as dense` is a step's time over the dense step's; the released code's
protocol has two passes, so it is compared with two dense steps. Dense networks are fine-tuned with SGD, as in the
paper's retraining, and with Adam, which learns the scores: the difference of the two is the optimizer's cost. With
--own-loop, the step is that of a plain optax loop, and the optimizer keeps a mask or moves one.
"""

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

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

PyTree = Any
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

ADAMW = optax.adamw(1e-3)
# Far away, so that no move comes; and one at every step.
NEVER, ALWAYS = sparsity.Moves(begin=100_000, end=100_100), sparsity.Moves(end=1000, every=1)


def moving(rule: sparsity.Rule) -> Callable[[PyTree], optax.GradientTransformation]:
    """An optimizer that moves a mask."""
    return lambda params: sparsity.gradual(ADAMW, DENSITY, rule, prunable=models.prunable)


# Optimizers of a plain loop, from the weights. The first one is dense.
OWN_LOOP: dict[str, Callable[[PyTree], optax.GradientTransformation]] = {
    "dense, AdamW": lambda params: ADAMW,
    "keep_mask": lambda params: sparsity.keep_mask(ADAMW, sparsity.topk_mask(models.prunable(params), DENSITY)),
    "gradual magnitude, between moves": moving(sparsity.GradualMagnitude(NEVER)),
    "RigL, at a move": moving(sparsity.RigL(ALWAYS)),
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
        """See `memory`."""
        return memory(self._step)


class OwnLoop:
    """A compiled step of a plain optax loop with its state, which each call updates in place."""

    passes = 1

    def __init__(
        self, name: str, variables: dict[str, Any], *, model: str, image_size: int, batch: int, dtype: str
    ) -> None:
        network = models.create(model, num_classes=CLASSES, dtype=dtype)
        tx = OWN_LOOP[name](variables["params"])
        rest = {key: value for key, value in variables.items() if key != "params"}
        images, labels = make_batch(batch, image_size)

        def loss(params: PyTree, images: jax.Array, labels: jax.Array) -> jax.Array:
            logits, _ = network.apply(
                {"params": params, **rest},
                images / 255,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        def step(state: PyTree, images: jax.Array, labels: jax.Array) -> tuple[PyTree, jax.Array]:
            params, inner = state
            value, gradient = jax.value_and_grad(loss)(params, images, labels)
            updates, inner = tx.update(gradient, inner, params)
            return (optax.apply_updates(params, updates), inner), value

        # The state is donated, and other cases begin with the same weights.
        params = jax.tree.map(jnp.copy, variables["params"])
        self._state, self._rest = (params, jax.jit(tx.init)(params)), (images, labels)
        compiled: Any = jax.jit(step, donate_argnums=0).lower(self._state, *self._rest).compile()
        self._step = compiled

    def __call__(self) -> Any:
        """Runs the step, and returns its loss."""
        self._state, value = self._step(self._state, *self._rest)
        return value

    def bytes(self) -> int:
        """See `memory`."""
        return memory(self._step)


def memory(program: Any) -> int:
    """The bytes of arguments, of outputs that are not arguments, and of temporary arrays, as XLA reports them."""
    sizes = program.memory_analysis()
    fresh_outputs = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return sizes.argument_size_in_bytes + fresh_outputs + sizes.temp_size_in_bytes


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
    parser.add_argument("--model", choices=models.accepted_names(), default="resnet18")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--own-loop", action="store_true", help="time optimizers that keep or move a mask")
    parser.add_argument("--json")
    chosen = parser.parse_args(arguments)
    sizes = {key: getattr(chosen, key) for key in ("model", "image_size", "batch", "dtype")}
    variables = make_variables(chosen.model, chosen.image_size)
    cases: dict[str, Case | OwnLoop] = (
        {name: OwnLoop(name, variables, **sizes) for name in OWN_LOOP}
        if chosen.own_loop
        else {name: Case(name, variables, **sizes) for name in CASES}
    )
    dense = next(iter(cases))
    seconds = measure.interleaved(cases, chosen.repeats)
    rows = [
        {
            "step": name,
            "ms": 1e3 * seconds[name],
            "as dense": seconds[name] / (case.passes * seconds[dense]),
            "MB": case.bytes() / 1e6,
            "memory as dense": case.bytes() / cases[dense].bytes(),
        }
        for name, case in cases.items()
    ]
    print(measure.table(rows))
    print(measure.facts())
    if chosen.json:
        measure.write_json(chosen.json, "step", rows)


if __name__ == "__main__":
    main()
