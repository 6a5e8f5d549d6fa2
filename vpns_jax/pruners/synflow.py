"""SynFlow: weights scored by the flow through them, without any data (Tanaka et al., arXiv 2006.05467).

Every parameter is made positive and the network is run on an image of ones. Then

    R = sum of logits,   S = w * dR/dw

and S is the flow through weight w. The flow into a unit equals the flow out of it, so no layer is emptied while another
still has weights to prune.
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

# The program runs on one image a hundred times, so a good compilation would take far longer than the runs.
_FAST_COMPILATION = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


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
    """Prunes in rounds of exponentially falling density: each scores the remaining weights and prunes the smallest.

    Args:
      problem: the network and density.
      runner: counts passes, and takes a note if ties decided much.

    Returns:
      The sparse network.

    Raises:
      UserError: the network has a softmax that SynFlow does not know, or the scores are all equal or not finite.
    """
    canvas = problem.network.prompt.canvas_size
    check_linear(problem.network.model, problem.source, canvas_size=canvas)
    mask = problem.everything()
    densities = schedule(problem.density, problem.options.rounds)
    for round_, density in enumerate(densities):
        left = sparsity.apply(problem.scored, problem.pattern.kept(mask))
        scores = synaptic_flow(problem.network.model, problem.source, left, problem.pattern, canvas_size=canvas)
        # Later, a few remaining weights may all have the same flow; in the dense network they may not.
        if round_ == 0 and density < 1:
            sparsity.check_scores(scores)
        mask = problem.keep_fewer(scores, mask, density, runner)
    runner.spend("prune", len(densities))
    return problem.sparse(mask)


def schedule(density: float, rounds: int) -> tuple[float, ...]:
    """Lists the density after each round: density^(k / rounds).

    Args:
      density: the share of weights to keep in the end.
      rounds: the number of rounds.

    Returns:
      One density for each round.
    """
    return tuple(density ** (k / rounds) for k in range(1, rounds + 1))


def check_linear(model: nn.Module, source: Subnetwork, *, canvas_size: int) -> None:
    """Checks that `linearize` knows every softmax of the network; an unknown one would not conserve flow.

    Args:
      model: the network.
      source: its variables.
      canvas_size: the side of its input.

    Raises:
      UserError: there is an exponential in the network that is not made linear.
    """
    image = jax.ShapeDtypeStruct((1, canvas_size, canvas_size, 3), jnp.float32)

    def apply(weights: PyTree, batch_stats: PyTree, image: jax.Array) -> Any:
        with nn.intercept_methods(linearize):
            return model.apply({"params": weights, "batch_stats": batch_stats}, image, train=False)

    program = str(jax.make_jaxpr(apply)(source.weights, source.batch_stats, image))
    if re.search(r"= exp\b", program):
        raise UserError(
            f"synflow cannot score {type(model).__name__}: it has a softmax, or another exponential, that synflow does "
            "not know how to make linear; use another method, or teach `synflow.linearize` that module"
        )


def synaptic_flow(
    model: nn.Module, source: Subnetwork, scored: PyTree, pattern: sparsity.Pattern, *, canvas_size: int
) -> PyTree:
    """Computes S of all scored arrays, as a share of the largest.

    Activations of positive weights grow from layer to layer, beyond the range of float32. They are therefore computed
    in float64, and on the CPU if the accelerator has no float64.

    Args:
      model: the network.
      source: its variables.
      scored: as `pattern.scored` gives it, zero where it is pruned.
      pattern: what is kept or pruned.
      canvas_size: the side of the network's input.

    Returns:
      The scores, a tree of float32 arrays like `scored`, zero where it is pruned.
    """
    platform = jax.devices()[0].platform
    where = jax.local_devices(backend="cpu" if platform == "tpu" else platform)[0]
    model = model.clone(dtype="float64") if hasattr(model, "dtype") else model
    mesh = sharding.make_mesh(1, [where])
    variables = sharding.replicate((source.weights, source.batch_stats, scored), mesh)
    with jax.set_mesh(mesh), jax.enable_x64(True):
        scores = _flow(model, canvas_size, pattern, *variables)
    # Put the scores on the devices of the weights.
    return jax.tree.map(lambda s, x: sharding.put(s, x.sharding), scores, scored)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), compiler_options=_FAST_COMPILATION)
def _flow(
    model: nn.Module, canvas_size: int, pattern: sparsity.Pattern, weights: PyTree, batch_stats: PyTree, scored: PyTree
) -> PyTree:
    positive = jax.tree.map(lambda x: jnp.abs(x).astype(jnp.float64), (weights, batch_stats, scored))
    weights, batch_stats, scored = positive
    ones = jnp.ones((1, canvas_size, canvas_size, 3), jnp.float64)

    def flow(scored: PyTree) -> jax.Array:
        variables = {"params": pattern.put(weights, scored), "batch_stats": batch_stats}
        with nn.intercept_methods(linearize):
            logits: Any = model.apply(variables, ones, train=False)
        return jnp.sum(logits)

    scores = jax.tree.map(jnp.multiply, scored, jax.grad(flow)(scored))
    largest = functools.reduce(jnp.maximum, [jnp.max(leaf) for leaf in jax.tree.leaves(scores)])
    return jax.tree.map(lambda s: _scaled(s, largest).astype(jnp.float32), scores)


def linearize(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: nn.module.InterceptorContext
) -> Any:
    """Makes the nonlinear parts of a transformer linear, so that they conserve flow; an interceptor for Flax.

    Layer normalization becomes x / rms(x) and softmax becomes q k / sum(q k), with constant denominators. (Batch
    normalization in eval mode is linear, and ReLU is linear for positive inputs.)

    Args:
      call: the original method.
      args: its positional arguments.
      kwargs: its keyword arguments.
      context: the module and the method's name.

    Returns:
      What the method, or its linear replacement, returns.
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
    """Divides `x` by a scale that gets no gradient. Where the scale is zero, `x` is zero, too."""
    return x / jax.lax.stop_gradient(jnp.where(scale > 0, scale, 1))
