"""What pruners share for any model: its weights, gradients of its loss, and the mask that keeps the largest scores.

A loss is a function of (params, batch) that gives a scalar; a batch is any pytree that it understands. The functions
here are compiled once for a loss, which must be hashable, as functions are.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from vpns_jax import sparsity, trees
from vpns_jax.errors import UserError

PyTree = Any
Loss = Callable[[PyTree, Any], jax.Array]
Prunable = Callable[[PyTree], PyTree]


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of any model, and what a mask of them may look like.

    Attributes:
      params: all weights, any pytree.
      kernels: those that may be pruned, a tree like `params` with None elsewhere, or a nested dict of them alone.
      pattern: what masks may look like.
      amount: how much is pruned.
    """

    params: PyTree
    kernels: PyTree
    pattern: sparsity.Pattern
    amount: PyTree

    @classmethod
    def of(cls, params: PyTree, density: float, pattern: sparsity.Pattern, prunable: Prunable) -> "Weights":
        """Finds what may be pruned.

        Args:
          params: all weights.
          density: the share to keep.
          pattern: what masks may look like.
          prunable: gives the part of the weights that may be pruned.

        Returns:
          The weights.

        Raises:
          UserError: nothing may be pruned, or the density or the pattern does not suit the weights.
        """
        kernels = prunable(params)
        return cls(params, kernels, pattern, pattern.amount(kernels, density))

    @property
    def scored(self) -> PyTree:
        """The arrays that get one score for each element."""
        return self.pattern.scored(self.kernels)

    def keep(self, scores: PyTree, *, signed: bool = False) -> PyTree:
        """Makes the mask that keeps the largest scores.

        Args:
          scores: a tree like `scored`.
          signed: whether the sign of a score counts; otherwise its magnitude does.

        Returns:
          The mask, a tree of bool like `params`, with None where nothing may be pruned.

        Raises:
          UserError: the scores are all equal, or not finite; not checked under `jax.jit`, or if nothing is pruned.
        """
        if not trees.is_traced(scores) and any(jax.tree.leaves(self.amount)):
            sparsity.check_scores(scores)
        return self.mask(self.pattern.select(scores, self.amount, signed=signed))

    def mask(self, kept: PyTree) -> PyTree:
        """Makes the mask of the whole tree.

        Args:
          kept: a tree of bool like `scored`.

        Returns:
          See `keep`.
        """
        return trees.like(self.params, trees.named_leaves(self.pattern.mask(kept, self.params)))


def checked(loss_fn: Loss, params: PyTree, batches: Iterable[Any], name: str) -> list[Any]:
    """Checks a loss on the first batch, by its shapes alone.

    Args:
      loss_fn: a loss.
      params: the weights.
      batches: the batches.
      name: the pruner, for errors.

    Returns:
      The batches.

    Raises:
      UserError: there is no batch, or the loss gives anything else than one float.
    """
    all_batches = list(batches)
    if not all_batches:
        raise UserError(f"{name} needs at least one batch; `batches` is empty")
    result = jax.eval_shape(loss_fn, params, all_batches[0])
    if not isinstance(result, jax.ShapeDtypeStruct):
        raise UserError(
            f"{name} needs a loss of (params, batch) that returns one number; this one returns a "
            f"{type(result).__name__}: return the loss alone, without auxiliary outputs"
        )
    if result.shape or not jnp.issubdtype(result.dtype, jnp.floating):
        raise UserError(
            f"{name} needs a loss that returns one float; this one returns {result.dtype} of shape {result.shape}: "
            "return its mean"
        )
    return all_batches


def mean_gradient(
    loss_fn: Loss, params: PyTree, scored: PyTree, batches: Iterable[Any], pattern: sparsity.Pattern
) -> PyTree:
    """Computes g, the gradient of a loss in the scored arrays, averaged over batches: one pass for each batch.

    Args:
      loss_fn: the loss, hashable.
      params: all weights.
      scored: the scored arrays, from `pattern.scored`.
      batches: the batches, at least one.
      pattern: says where the scored arrays belong in the weights.

    Returns:
      A tree like `scored`, at least float32.
    """
    return _mean_power(1, loss_fn, params, scored, batches, pattern)


def mean_squared_gradient(
    loss_fn: Loss, params: PyTree, scored: PyTree, batches: Iterable[Any], pattern: sparsity.Pattern
) -> PyTree:
    """Computes E[g^2], the squared gradient of a loss on a batch, averaged over batches; see `mean_gradient`.

    Args:
      loss_fn: the loss, hashable.
      params: all weights.
      scored: the scored arrays, from `pattern.scored`.
      batches: the batches, at least one.
      pattern: says where the scored arrays belong in the weights.

    Returns:
      A tree like `scored`, at least float32.
    """
    return _mean_power(2, loss_fn, params, scored, batches, pattern)


def _mean_power(
    power: int, loss_fn: Loss, params: PyTree, scored: PyTree, batches: Iterable[Any], pattern: sparsity.Pattern
) -> PyTree:
    total, count = _zeros(scored), 0
    for batch in batches:
        total, count = _add_gradient(power, loss_fn, pattern, total, params, scored, batch), count + 1
    return _divided(total, count)


def mean_hessian_vector(
    loss_fn: Loss, params: PyTree, scored: PyTree, vector: PyTree, batches: Iterable[Any], pattern: sparsity.Pattern
) -> PyTree:
    """Computes H v, the Hessian of a loss in the scored arrays times v, averaged over batches.

    H v is the derivative of the gradient along v. It costs two passes for each batch: the gradient and its tangent.

    Args:
      loss_fn: the loss, hashable.
      params: all weights.
      scored: the scored arrays, from `pattern.scored`.
      vector: v, a tree like `scored`.
      batches: the batches, at least one.
      pattern: says where the scored arrays belong in the weights.

    Returns:
      A tree like `scored`, at least float32.
    """
    total, count = _zeros(scored), 0
    for batch in batches:
        total, count = _add_hessian_vector(loss_fn, pattern, total, params, scored, vector, batch), count + 1
    return _divided(total, count)


def _zeros(scored: PyTree) -> PyTree:
    """Sums to add to. In half precision a sum over many batches would stand still."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, sparsity.at_least_single(x)), scored)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def _add_gradient(
    power: int, loss_fn: Loss, pattern: sparsity.Pattern, total: PyTree, params: PyTree, scored: PyTree, batch: Any
) -> PyTree:
    gradient = jax.grad(lambda scored: loss_fn(pattern.put(params, scored), batch))(scored)
    return jax.tree.map(lambda x, g: x + g.astype(x.dtype) ** power, total, gradient)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _add_hessian_vector(
    loss_fn: Loss, pattern: sparsity.Pattern, total: PyTree, params: PyTree, scored: PyTree, vector: PyTree, batch: Any
) -> PyTree:
    gradient = jax.grad(lambda scored: loss_fn(pattern.put(params, scored), batch))
    # A tangent has the dtype of its variable.
    tangent = jax.tree.map(lambda x, v: v.astype(x.dtype), scored, vector)
    _, product = jax.jvp(gradient, (scored,), (tangent,))
    return jax.tree.map(jnp.add, total, product)


# In one program, instead of one for each shape.
@jax.jit
def _divided(total: PyTree, count: int) -> PyTree:
    return jax.tree.map(lambda x: x / count, total)
