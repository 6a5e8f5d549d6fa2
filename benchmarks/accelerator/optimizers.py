"""What it costs an optimizer to keep a mask, and to move it: an update alone, from given gradients."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax

from benchmarks import measure, step
from benchmarks.accelerator import sizes
from benchmarks.accelerator.rows import Compared, Row, tried
from vpns_jax import models, sparsity

PyTree = Any

# Updates in one program: the host takes milliseconds to start a program of some hundred arrays.
_UPDATES = 20
# The mask moves at every step, and at steps 0, 100, 200 and so on.
_ALWAYS, _RARELY = (sparsity.Moves(end=10_000, every=every) for every in (1, 100))


def rows(*, tiny: bool) -> Iterator[Row]:
    """The part."""
    for model in ("resnet50",) if tiny else ("resnet50", "vit_b16"):
        chosen = sizes.of(model, "float32", tiny=tiny)
        params = step.make_variables(model, chosen.image_size)["params"]
        table = Compared("AdamW")
        for name, transformation in _optimizers(params):
            measured = functools.partial(_measured, name, transformation, params, table)
            yield tried(f"AdamW on the weights of {model}, a tenth kept", {"update": name}, measured)


def _optimizers(params: PyTree) -> Iterator[tuple[str, Callable[[], optax.GradientTransformation]]]:
    adamw = optax.adamw(1e-3)
    yield "AdamW", lambda: adamw
    yield "keep_mask", lambda: sparsity.keep_mask(adamw, sparsity.topk_mask(models.prunable(params), 0.1))
    for name, rule in (("gradual magnitude", sparsity.GradualMagnitude), ("RigL", sparsity.RigL)):
        for when, moves in (("does not move", _RARELY), ("moves", _ALWAYS)):
            moving = functools.partial(sparsity.gradual, adamw, 0.1, rule(moves), prunable=models.prunable)
            yield f"gradual: {name}, {when}", moving


def _measured(
    name: str, made: Callable[[], optax.GradientTransformation], params: PyTree, table: Compared
) -> dict[str, float]:
    transformation = made()

    def update(_: int, now: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        params, state = now
        updates, state = transformation.update(params, state, params)
        return optax.apply_updates(params, updates), state

    run = jax.jit(lambda params, state: jax.lax.fori_loop(0, _UPDATES, update, (params, state)))
    # After these updates, what moves rarely does not move in the timed ones.
    params, state = run(params, jax.jit(transformation.init)(params))
    seconds = measure.paced({"updates": lambda: run(params, state)})["updates"] / _UPDATES
    more = table.columns(name, seconds, lambda plain: {"more than AdamW, ms": 1e3 * (seconds - plain)})
    return {"ms": 1e3 * seconds, **more}
