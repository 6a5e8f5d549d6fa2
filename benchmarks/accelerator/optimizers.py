"""What it costs an optimizer to keep a mask, and to move it: an update alone, from given gradients."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax

from benchmarks import measure, step
from benchmarks.accelerator import sizes
from benchmarks.accelerator.rows import Row, tried
from vpns_jax import models, sparsity

PyTree = Any

# The mask moves at steps 0, 100, 200 and so on.
_MOVES = sparsity.Moves(end=10_000, every=100)


def rows(*, tiny: bool) -> Iterator[Row]:
    """The part."""
    for model in ("resnet50",) if tiny else ("resnet50", "vit_b16"):
        chosen = sizes.of(model, "float32", tiny=tiny)
        params = step.make_variables(model, chosen.image_size)["params"]
        plain: list[float] = []
        for name, transformation, steps in _updates(params):
            measured = functools.partial(_measured, transformation, params, steps, plain)
            yield tried(f"AdamW on the weights of {model}, a tenth kept", {"update": name}, measured)


def _updates(params: PyTree) -> Iterator[tuple[str, Callable[[], optax.GradientTransformation], int]]:
    """Names, optimizers, and how many updates come before the one that is timed."""
    adamw = optax.adamw(1e-3)
    yield "AdamW", lambda: adamw, 0
    yield "keep_mask", lambda: sparsity.keep_mask(adamw, sparsity.topk_mask(models.prunable(params), 0.1)), 0
    for name, rule in (("gradual magnitude", sparsity.GradualMagnitude), ("RigL", sparsity.RigL)):
        for when, steps in (("does not move", 1), ("moves", 0)):
            moving = functools.partial(sparsity.gradual, adamw, 0.1, rule(_MOVES), prunable=models.prunable)
            yield f"gradual: {name}, {when}", moving, steps


def _measured(
    made: Callable[[], optax.GradientTransformation], params: PyTree, steps: int, plain: list[float]
) -> dict[str, float]:
    transformation = made()

    @jax.jit
    def update(params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        updates, state = transformation.update(params, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.jit(transformation.init)(params)
    for _ in range(steps):
        params, state = update(params, state)
    seconds = measure.paced({"update": lambda: update(params, state)})["update"]
    plain.append(seconds)
    return {"ms": 1e3 * seconds, "more than AdamW, ms": 1e3 * (seconds - plain[0])}
