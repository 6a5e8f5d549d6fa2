"""SynFlow: weights scored by the flow through them, without any data (Tanaka et al., arXiv 2006.05467).

Of the network with every parameter made positive, run on an image of ones,

    R = sum of logits,   S = w * dR/dw

is what flows through weight w. What flows into a unit flows out of it, so no layer is cut while another can give.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpns_jax import sparsity
from vpns_jax.errors import UserError
from vpns_jax.models.vit import Attention
from vpns_jax.options import Range, option
from vpns_jax.parallel import sharding
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner

PyTree = Any

# A single image a hundred times: to compile it well takes far longer than to run it.
_QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclasses.dataclass(frozen=True)
class Options:
    """How SynFlow prunes."""

    group: ClassVar[str] = "synflow"

    rounds: int = option(
        100,
        "Rounds of scoring and pruning; each prunes a part of the remaining weights.",
        Range(1, 10_000, "each is a pass through the network"),
    )


def prune(problem: Problem, runner: Runner) -> Subnetwork:
    """In rounds of exponentially falling density: scores what is left, drops the smallest."""
    canvas = problem.network.prompt.canvas_size
    check_linear(problem.network.model, problem.source, canvas_size=canvas)
    mask = jax.tree.map(lambda w: jnp.ones(w.shape, bool), problem.prunable)
    densities = schedule(problem.density, problem.options.rounds)
    for round_, density in enumerate(densities):
        scores = synaptic_flow(problem.network.model, problem.source, mask, canvas_size=canvas)
        # Of the last few weights all may carry the same flow, but not of the dense network's.
        if round_ == 0 and density < 1:
            sparsity.check_scores(scores)
        mask = problem.keep_fewer(scores, mask, density)
    problem.note_ties(runner, scores, mask)
    runner.spend("prune", len(densities))
    return problem.sparse(mask)


def schedule(density: float, rounds: int) -> tuple[float, ...]:
    """What is left after each round: density^(k / rounds)."""
    return tuple(density ** (k / rounds) for k in range(1, rounds + 1))


def check_linear(model: nn.Module, source: Subnetwork, *, canvas_size: int) -> None:
    """Raises `UserError` if there is a softmax in the network that `linearise` does not know: flow ends there.

    Args:
      model: the network.
      source: its variables.
      canvas_size: the side of its input.
    """
    image = jax.ShapeDtypeStruct((1, canvas_size, canvas_size, 3), jnp.float32)

    def apply(weights: PyTree, batch_stats: PyTree, image: jax.Array) -> Any:
        with nn.intercept_methods(linearise):
            return model.apply({"params": weights, "batch_stats": batch_stats}, image, train=False)

    program = str(jax.make_jaxpr(apply)(source.weights, source.batch_stats, image))
    if re.search(r"= exp\b", program):
        raise UserError(
            f"synflow cannot score {type(model).__name__}: it has a softmax, or another exponential, that synflow does "
            "not know how to make linear; use another method, or teach `synflow.linearise` that module"
        )


def synaptic_flow(model: nn.Module, source: Subnetwork, mask: PyTree, *, canvas_size: int) -> PyTree:
    """S of every weight that `mask` names, as a share of the largest: float32, zero where it is pruned.

    Activations grow from layer to layer where nothing cancels, beyond what float32 holds: this is done in float64,
    and on the CPU where the accelerator has none.
    """
    platform = jax.devices()[0].platform
    where = jax.local_devices(backend="cpu" if platform == "tpu" else platform)[0]
    model = model.clone(dtype="float64") if hasattr(model, "dtype") else model
    mesh = sharding.make_mesh(1, [where])
    weights, stats, mask = sharding.replicate((source.weights, source.batch_stats, mask), mesh)
    with jax.set_mesh(mesh), jax.enable_x64(True):
        scores = _flow(model, canvas_size, weights, stats, mask)
    # Back to where the weights are.
    kernels = sparsity.subtree(source.weights, mask)
    return jax.tree.map(lambda s, w: sharding.put(s, w.sharding), scores, kernels)


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=_QUICKLY)
def _flow(model: nn.Module, canvas_size: int, weights: PyTree, batch_stats: PyTree, mask: PyTree) -> PyTree:
    weights, batch_stats = jax.tree.map(lambda x: jnp.abs(x).astype(jnp.float64), (weights, batch_stats))
    kernels = sparsity.apply(sparsity.subtree(weights, mask), mask)
    ones = jnp.ones((1, canvas_size, canvas_size, 3), jnp.float64)

    def flow(kernels: PyTree) -> jax.Array:
        variables = {"params": sparsity.overlay(weights, kernels), "batch_stats": batch_stats}
        with nn.intercept_methods(linearise):
            logits: Any = model.apply(variables, ones, train=False)
        return jnp.sum(logits)

    scores = jax.tree.map(jnp.multiply, kernels, jax.grad(flow)(kernels))
    largest = functools.reduce(jnp.maximum, [jnp.max(leaf) for leaf in jax.tree.leaves(scores)])
    return jax.tree.map(lambda s: _scaled(s, largest).astype(jnp.float32), scores)


def linearise(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: nn.module.InterceptorContext
) -> Any:
    """Makes linear what in a transformer is not, so that flow is conserved there too.

    Layer normalisation and softmax keep their scale, which here is a constant, and lose the rest: x / rms(x), and
    q k / sum(q k). (Batch normalisation in eval mode is linear, and so is ReLU on what is positive.)
    """
    module = context.module
    if isinstance(module, nn.LayerNorm) and context.method_name == "__call__":
        (x,) = args
        scale, bias = (module.variables["params"][name].reshape(1, 1, -1) for name in ("scale", "bias"))
        return _scaled(x, jnp.sqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True))) * scale + bias
    if isinstance(module, Attention) and context.method_name == "attend":
        query, key, value = args
        weights = jnp.einsum("bqhd,bkhd->bhqk", query, key)
        return jnp.einsum("bhqk,bkhd->bqhd", _scaled(weights, weights.sum(-1, keepdims=True)), value)
    return call(*args, **kwargs)


def _scaled(x: jax.Array, scale: jax.Array) -> jax.Array:
    """`x` over a scale that no gradient sees; where that is zero, `x` is too."""
    return x / jax.lax.stop_gradient(jnp.where(scale > 0, scale, 1))
