"""What learning a mask and a prompt costs beside fine-tuning the dense network: time and memory of one iteration.

    python -m benchmarks.step --model resnet18 --image-size 32 --batch 64

Every step runs on the same images, in turns; `as dense` is its share of the dense step's time, or, for the released
code's protocol with its two passes, of two of them. Dense networks are fine-tuned by SGD, as the paper retrains, and by
Adam, which learns the scores: what lies between the two is the optimizer's cost, and no mask's.
"""

import argparse
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from vpns_jax.training.forward import Network
from vpns_jax.training.loop import STEPS

from benchmarks import measure
from vpns_jax import models, prompting, sparsity
from vpns_jax.training import optim, steps
from vpns_jax.training import state as states

CLASSES, DENSITY = 10, 0.1


class Kind(NamedTuple):
    """What tells steps apart: stage, protocol, whether there is a prompt and a mask, and what learns their weights."""

    stage: str
    protocol: str
    prompted: bool
    masked: bool
    optimizer: str


CASES = {
    "dense": Kind("retrain", "paper", prompted=False, masked=False, optimizer="sgd"),
    "dense, Adam": Kind("retrain", "paper", prompted=False, masked=False, optimizer="adam"),
    "retrain, masked": Kind("retrain", "paper", prompted=False, masked=True, optimizer="sgd"),
    "retrain, masked, prompt": Kind("retrain", "paper", prompted=True, masked=True, optimizer="sgd"),
    "prune (HYDRA)": Kind("prune", "paper", prompted=False, masked=True, optimizer="adam"),
    "prune (VPNs)": Kind("prune", "paper", prompted=True, masked=True, optimizer="adam"),
    "prune (VPNs, reference)": Kind("prune", "reference", prompted=True, masked=True, optimizer="adam"),
}


class Case:
    """One step, compiled; it owns its state, which every call moves on in place."""

    def __init__(
        self, name: str, variables: dict[str, Any], *, model: str, image_size: int, batch: int, dtype: str
    ) -> None:
        task, self._state, fixed = start(name, variables, model=model, image_size=image_size, batch=batch, dtype=dtype)
        self._rest = (fixed, (make_batch(batch, image_size),) * len(task.passes), jax.random.key(0))
        step = jax.jit(STEPS[task.stage], static_argnums=0, donate_argnums=1)
        self._step: Any = step.lower(task, self._state, *self._rest).compile()
        self.passes = len(task.passes)

    def __call__(self) -> Any:
        self._state, metrics = self._step(self._state, *self._rest)
        return metrics

    def bytes(self) -> int:
        """Arguments, outputs that are not arguments, and temporaries, by XLA's own account."""
        found = self._step.memory_analysis()
        own = found.output_size_in_bytes - found.alias_size_in_bytes
        return found.argument_size_in_bytes + own + found.temp_size_in_bytes


def start(
    name: str, variables: dict[str, Any], *, model: str, image_size: int, batch: int, dtype: str
) -> tuple[steps.Task, states.TrainState, states.Fixed]:
    """A stage as it begins: its task, its state, and what it holds fixed."""
    kind = CASES[name]
    network = make_network(model, prompted=kind.prompted, image_size=image_size, dtype=dtype)
    task = make_task(kind, network, batch=batch)
    kernels = models.prunable(variables["params"])
    scores, pruned = sparsity.scaled_init(kernels), jnp.int32(sparsity.pruned_count(kernels, DENSITY))
    learned: dict[str, Any] = {"prompt": network.prompt.init()}
    if kind.stage == "prune":
        learned["scores"] = scores
        fixed = states.Fixed(weights=variables["params"], bits={}, pruned=pruned)
    else:
        learned["weights"] = variables["params"]
        mask = sparsity.prune_smallest(scores, pruned) if kind.masked else {}
        fixed = states.Fixed(weights={}, bits=sparsity.pack(mask), pruned=jnp.int32(0))
    stats = variables.get("batch_stats", {})
    return task, states.create(task.rules, learned, stats, jnp.arange(CLASSES)), fixed


def frame_width(image_size: int) -> int:
    """Of the prompt, in pixels: the paper's 16 at 224."""
    return max(1, image_size // 14)


def make_network(model: str, *, prompted: bool, image_size: int, dtype: str) -> Network:
    """The network, without dropout, and where asked for the paper's prompt."""
    still = {"dropout": 0.0} if "dropout" in models.options(model) else {}
    blank = prompting.create("none", canvas_size=image_size)
    pad = prompting.create("pad", canvas_size=image_size, pad_size=frame_width(image_size))
    mean, std = models.normalisation(model)
    module = models.create(model, num_classes=CLASSES, dtype=dtype, **still)
    return Network(module, pad if prompted else blank, blank, mean, std)


def make_variables(model: str, image_size: int) -> dict[str, Any]:
    """Fresh variables."""
    images = jnp.zeros((1, image_size, image_size, 3))
    return jax.jit(models.create(model, num_classes=CLASSES).init)(jax.random.key(0), images)


def make_batch(batch: int, image_size: int) -> steps.Batch:
    """Noise, and labels in turn."""
    images = np.random.default_rng(0).integers(0, 256, (batch, image_size, image_size, 3))
    return jnp.asarray(images, jnp.uint8), jnp.arange(batch) % CLASSES


def make_task(kind: Kind, network: Network, *, batch: int) -> steps.Task:
    """With the paper's learning rates and decay."""
    rule = functools.partial(
        optim.Rule,
        weight_decay=1e-4,
        decay="coupled",
        schedule="cosine_epochs",
        warmup_epochs=0.0,
        epochs=30,
        updates_per_epoch=1000,
    )
    rules = {
        "adam": rule(optimizer="adam", learning_rate=1e-4, momentum=0.0),
        "sgd": rule(optimizer="sgd", learning_rate=0.01, momentum=0.9),
    }
    groups = ("scores" if kind.stage == "prune" else "weights", "prompt")
    named = tuple((group, rules[kind.optimizer]) for group in groups)
    return steps.Task(kind.stage, network, kind.protocol, "update", batch, named)


def main(arguments: list[str] | None = None) -> None:
    """Prints a table and, if asked to, writes JSON."""
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
