"""Which weights of any network may be pruned."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax import trees
from vpns_jax.errors import UserError, several
from vpns_jax.sparsity.selection.keys import SUPPORTED

PyTree = Any
# The names of weights: Flax's, PyTorch's and Equinox's, and Haiku's.
NAMES = ("kernel", "weight", "w")


def is_kernel(path: str, leaf: Any) -> bool:
    """Whether a leaf is a matrix or a convolution's kernel, by its name and its axes.

    Args:
      path: its "/"-joined path.
      leaf: the leaf, an array or its shape, or anything else.

    Returns:
      True for float arrays of two axes or more called `kernel`, `weight` or `w`. A `weight` or `w` is left out if its
      module is called an embedding or a norm; of embeddings, only tables with two axes (not a patch embedding).
    """
    *modules, name = path.split("/")
    if name not in NAMES or not _is_float(leaf) or len(leaf.shape) < 2:
        return False
    # Elsewhere than in Flax, tables of vectors and norms over several axes are called so, too.
    module = modules[-1].lower() if modules and name != "kernel" else ""
    return not ("norm" in module or ("embed" in module and len(leaf.shape) == 2))


def prunable(
    params: PyTree,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    select: Callable[[str, Any], bool] = is_kernel,
) -> PyTree:
    """The weights that may be pruned, in any pytree: dicts, FrozenDict, NNX state, Equinox modules, dataclasses.

    Args:
      params: the weights, arrays or shapes.
      include: globs over "/"-joined paths, such as "layer4_*" or "*/attention/*"; if any are given, only selected
        leaves that match one of them are taken. A pattern that names a module covers all of it.
      exclude: globs of leaves to leave out, such as "head".
      select: a predicate of (path, leaf). The default takes matrices and kernels of convolutions, and no biases, norms
        and embeddings; see `is_kernel`.

    Returns:
      A tree with the structure of `params`, with None where nothing may be pruned.

    Raises:
      UserError: nothing is selected, a pattern matches nothing that is, nothing is left, or a selected leaf is no array
        of floats with axes, or of floats that cannot be ranked, such as float64.
    """
    leaves = trees.named_leaves(params)
    chosen = {path: leaf for path, leaf in leaves.items() if select(path, leaf)}
    if not chosen:
        raise UserError(
            f"nothing is selected to be pruned among {several(leaves)}; the default takes arrays of two axes or more "
            f"called {', '.join(NAMES)}; pass select=, a predicate of (path, leaf) that is true for some"
        )
    for path, leaf in chosen.items():
        if not _is_float(leaf) or not leaf.shape:
            what = f"{leaf.dtype} of shape {tuple(leaf.shape)}" if hasattr(leaf, "dtype") else type(leaf).__name__
            raise UserError(f"select= takes {path}, which is {what}; only arrays of floats with axes can be pruned")
        # A float64 array of NumPy's is a float32 one to JAX, as long as JAX has no 64 bits.
        if (dtype := jax.dtypes.canonicalize_dtype(leaf.dtype)) not in SUPPORTED:
            known = "float32, bfloat16 and float16"
            raise UserError(f"{path} is {dtype}; only {known} can be pruned: leave it out, or convert it")
    kept = trees.narrow(list(chosen), include=include, exclude=exclude)
    return trees.like(params, {path: leaf for path, leaf in chosen.items() if path in kept})


def check_some(kernels: PyTree) -> None:
    """Checks that there is something to prune.

    Args:
      kernels: the weights that may be pruned.

    Raises:
      UserError: there is nothing.
    """
    if not jax.tree.leaves(kernels):
        raise UserError("nothing may be pruned: `prunable` gave no weights; see sparsity.prunable")


def _is_float(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape") and jnp.issubdtype(leaf.dtype, jnp.floating)
