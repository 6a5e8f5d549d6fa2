"""The flow through each weight of a network, by which SynFlow scores (Tanaka et al., arXiv 2006.05467)."""

import functools
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax import sparsity, trees
from vpns_jax.errors import UserError
from vpns_jax.models.vit import Attention
from vpns_jax.parallel import sharding

PyTree = Any
Apply = Callable[[PyTree, PyTree], Any]

# The program runs on one image a hundred times, so a good compilation would take far longer than the runs.
_FAST_COMPILATION = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def check_exponentials(apply_fn: Apply, params: PyTree, inputs: PyTree, name: str) -> None:
    """Checks that `linearize` knows every softmax of the network; an unknown one would not conserve flow.

    Only exponentials are looked for. Other functions that are not linear, such as GELU's erf, pass.

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
            "not know how to make linear; use another method, or teach `flow.linearize` that module"
        )


def synaptic_flow(apply_fn: Apply, params: PyTree, scored: PyTree, inputs: PyTree, pattern: sparsity.Pattern) -> PyTree:
    """Computes S of all scored arrays, as a share of the largest.

    Activations of positive weights grow from layer to layer, beyond the range of float32. They are therefore computed
    in float64: on one device, and on the CPU if the accelerator has no float64. Under `jax.jit`, they are computed
    where the rest of the program is.

    Args:
      apply_fn: the network, a function of (params, inputs); hashable.
      params: all weights.
      scored: as `pattern.scored` gives it, zero where it is pruned.
      inputs: its inputs, of one example; made positive, as the weights are.
      pattern: what is kept or pruned.

    Returns:
      The scores, a tree of float32 arrays like `scored`, zero where it is pruned.

    Raises:
      UserError: it is traced for TPUs, which have no float64.
    """
    platform = jax.devices()[0].platform
    if trees.is_traced((params, scored, inputs)):
        if platform == "tpu":
            raise UserError("synflow needs float64, which TPUs lack: call it outside of jax.jit, where it uses the CPU")
        with jax.enable_x64(True):
            return _flow(apply_fn, pattern, params, inputs, scored)
    where = jax.local_devices(backend="cpu" if platform == "tpu" else platform)[0]
    mesh = sharding.make_mesh(1, [where])
    variables = sharding.replicate((params, inputs, scored), mesh)
    with jax.set_mesh(mesh), jax.enable_x64(True):
        scores = _compiled_flow(apply_fn, pattern, *variables)
    # Put the scores on the devices of the weights.
    return jax.tree.map(lambda s, x: sharding.put(s, x.sharding), scores, scored)


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


_compiled_flow = jax.jit(_flow, static_argnums=(0, 1), compiler_options=_FAST_COMPILATION)


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
        return _normalized(module, *args, **kwargs)
    if isinstance(module, Attention) and context.method_name == "attend":
        query, key, value = args
        weights = jnp.einsum("bqhd,bkhd->bhqk", query, key)
        return jnp.einsum("bhqk,bkhd->bqhd", _scaled(weights, weights.sum(-1, keepdims=True)), value)
    return call(*args, **kwargs)


def _normalized(module: nn.LayerNorm, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
    """Layer normalization without its mean; `mask` says which elements its scale is computed from, as in Flax."""
    square = jnp.mean(jnp.square(x), axis=module.reduction_axes, keepdims=True, where=mask)
    features = np.arange(x.ndim)[np.atleast_1d(module.feature_axes)]
    rest = tuple(axis for axis in range(x.ndim) if axis not in features)
    # A normalization may have no scale or no bias.
    affine = {name: jnp.expand_dims(leaf, rest) for name, leaf in module.variables.get("params", {}).items()}
    return _scaled(x, jnp.sqrt(square)) * affine.get("scale", 1) + affine.get("bias", 0)


def _scaled(x: jax.Array, scale: jax.Array) -> jax.Array:
    """Divides `x` by a scale that gets no gradient. Where the scale is zero, `x` is zero, too."""
    return x / jax.lax.stop_gradient(jnp.where(scale > 0, scale, 1))
