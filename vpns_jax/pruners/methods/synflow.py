"""SynFlow: weights scored by the flow through them, without any data (Tanaka et al., arXiv 2006.05467).

Every parameter is made positive and the network is run on an image of ones. Then

    R = sum of logits,   S = w * dR/dw

and S is the flow through weight w. The flow into a unit equals the flow out of it, so no layer is emptied while another
still has weights to prune.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpns_jax import sparsity
from vpns_jax.errors import UserError
from vpns_jax.models.vit import Attention
from vpns_jax.options import Range, option
from vpns_jax.parallel import sharding
from vpns_jax.pruners.any_model import Prunable, Weights
from vpns_jax.pruners.problem import Problem
from vpns_jax.training.network import Subnetwork
from vpns_jax.training.runner import Runner

PyTree = Any
Apply = Callable[[PyTree, PyTree], Any]

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


def synflow(
    apply_fn: Apply,
    params: PyTree,
    inputs: PyTree,
    density: float,
    *,
    rounds: int = 100,
    pattern: sparsity.Pattern = sparsity.SINGLE,
    prunable: Prunable = sparsity.prunable,
) -> PyTree:
    """Keeps the weights of any model with the largest flow, in rounds; the data do not matter.

    Flow is conserved by layers that are linear or ReLUs and, in Flax Linen modules, by layer normalization and our
    attention, which are made linear. Batch normalization must run in eval mode. Not for use under `jax.jit`: the flow
    is a program of its own, in float64.

    Args:
      apply_fn: the network, a function of (params, inputs); hashable. It must not fix a lower precision than float64.
      params: the weights, any pytree of float arrays. Give running statistics in them, too: all are made positive.
      inputs: inputs of one example, or their shapes; only shapes matter, since ones take their place.
      density: the share to keep, in (0, 1].
      rounds: the number of rounds.
      pattern: what masks may look like.
      prunable: gives the part of the weights that may be pruned.

    Returns:
      The mask, a tree of bool like `params`, with None where nothing may be pruned.

    Raises:
      UserError: an argument does not suit the others, there is an exponential that is not made linear, or the scores
        are all equal or not finite.
    """
    weights = Weights.of(params, density, pattern, prunable)
    ones = jax.tree.map(lambda x: jnp.ones(x.shape, jnp.float32), inputs)
    check_linear(apply_fn, params, ones, getattr(apply_fn, "__name__", type(apply_fn).__name__))
    amounts = [pattern.amount(weights.kernels, share) for share in schedule(density, rounds)]
    kept, _ = in_rounds(apply_fn, params, weights.scored, ones, amounts, pattern)
    return weights.mask(kept)


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
    network, source, size = in_double(problem.network.model), problem.source, problem.network.prompt.canvas_size
    inputs = jnp.ones((1, size, size, 3)), source.batch_stats
    check_linear(network, source.weights, inputs, type(network.model).__name__)
    amounts = [problem.pruned(density) for density in schedule(problem.density, problem.options.rounds)]
    kept, scores = in_rounds(network, source.weights, problem.scored, inputs, amounts, problem.pattern)
    runner.spend("prune", len(amounts))
    return problem.sparse(problem.chosen(scores, kept, runner))


@dataclasses.dataclass(frozen=True)
class InEvalMode:
    """A model of ours as a function of its weights, and of an image with batch statistics. Hashable.

    Attributes:
      model: the model.
    """

    model: nn.Module

    def __call__(self, weights: PyTree, inputs: tuple[jax.Array, PyTree]) -> Any:
        """Computes the logits."""
        image, batch_stats = inputs
        return self.model.apply({"params": weights, "batch_stats": batch_stats}, image, train=False)


def in_double(model: nn.Module) -> InEvalMode:
    """Makes the function of a model that computes in float64, where the model has a precision of its own.

    Args:
      model: the model.

    Returns:
      The function.
    """
    return InEvalMode(model.clone(dtype="float64") if hasattr(model, "dtype") else model)


def in_rounds(
    apply_fn: Apply, params: PyTree, scored: PyTree, inputs: PyTree, amounts: Sequence[Any], pattern: sparsity.Pattern
) -> tuple[PyTree, PyTree]:
    """Scores what is left, prunes the smallest, and so on.

    Args:
      apply_fn: the network, a function of (params, inputs).
      params: all weights.
      scored: the scored arrays.
      inputs: its inputs.
      amounts: how much is pruned after each round, from `pattern.amount`.
      pattern: what masks may look like.

    Returns:
      What is kept, and the scores by which the last was chosen; trees like `scored`.

    Raises:
      UserError: the scores are all equal, or not finite.
    """
    kept = jax.tree.map(lambda x: jnp.ones(x.shape, bool), scored)
    for round_, amount in enumerate(amounts):
        left = jax.tree.map(lambda x, keep: x * keep.astype(x.dtype), scored, kept)
        scores = synaptic_flow(apply_fn, params, left, inputs, pattern)
        # Later, a few remaining weights may all have the same flow; in the dense network they may not.
        if round_ == 0 and any(jax.tree.leaves(amounts[-1])):
            sparsity.check_scores(scores)
        kept = pattern.select_further(scores, kept, amount)
    return kept, scores


def schedule(density: float, rounds: int) -> tuple[float, ...]:
    """Lists the density after each round: density^(k / rounds).

    Args:
      density: the share of weights to keep in the end.
      rounds: the number of rounds.

    Returns:
      One density for each round.
    """
    return tuple(density ** (k / rounds) for k in range(1, rounds + 1))


def check_linear(apply_fn: Apply, params: PyTree, inputs: PyTree, name: str) -> None:
    """Checks that `linearize` knows every softmax of the network; an unknown one would not conserve flow.

    Args:
      apply_fn: the network, a function of (params, inputs).
      params: its weights.
      inputs: its inputs.
      name: its name, for the error.

    Raises:
      UserError: there is an exponential in the network that is not made linear.
    """

    def linear(params: PyTree, inputs: PyTree) -> Any:
        with nn.intercept_methods(linearize):
            return apply_fn(params, inputs)

    with jax.enable_x64(True):
        program = str(jax.make_jaxpr(linear)(params, inputs))
    if re.search(r"= exp\b", program):
        raise UserError(
            f"synflow cannot score {name}: it has a softmax, or another exponential, that synflow does "
            "not know how to make linear; use another method, or teach `synflow.linearize` that module"
        )


def synaptic_flow(apply_fn: Apply, params: PyTree, scored: PyTree, inputs: PyTree, pattern: sparsity.Pattern) -> PyTree:
    """Computes S of all scored arrays, as a share of the largest.

    Activations of positive weights grow from layer to layer, beyond the range of float32. They are therefore computed
    in float64, and on the CPU if the accelerator has no float64.

    Args:
      apply_fn: the network, a function of (params, inputs); hashable.
      params: all weights.
      scored: as `pattern.scored` gives it, zero where it is pruned.
      inputs: its inputs, of one example; made positive, as the weights are.
      pattern: what is kept or pruned.

    Returns:
      The scores, a tree of float32 arrays like `scored`, zero where it is pruned.
    """
    platform = jax.devices()[0].platform
    where = jax.local_devices(backend="cpu" if platform == "tpu" else platform)[0]
    mesh = sharding.make_mesh(1, [where])
    variables = sharding.replicate((params, inputs, scored), mesh)
    with jax.set_mesh(mesh), jax.enable_x64(True):
        scores = _flow(apply_fn, pattern, *variables)
    # Put the scores on the devices of the weights.
    return jax.tree.map(lambda s, x: sharding.put(s, x.sharding), scores, scored)


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=_FAST_COMPILATION)
def _flow(apply_fn: Apply, pattern: sparsity.Pattern, params: PyTree, inputs: PyTree, scored: PyTree) -> PyTree:
    positive = jax.tree.map(lambda x: jnp.abs(x).astype(jnp.float64), (params, inputs, scored))
    params, inputs, scored = positive

    def flow(scored: PyTree) -> jax.Array:
        with nn.intercept_methods(linearize):
            outputs = apply_fn(pattern.put(params, scored), inputs)
        return sum((jnp.sum(output) for output in jax.tree.leaves(outputs)), start=jnp.float64(0))

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
