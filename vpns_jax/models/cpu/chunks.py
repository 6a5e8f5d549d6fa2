"""Computes batches in chunks that fit a CPU's cache."""

from collections.abc import Callable

import jax
from jax import lax


def in_chunks(function: Callable[[jax.Array], jax.Array], x: jax.Array, floats: int, *, most: int) -> jax.Array:
    """`function(x)`, computed in chunks of the batch if that keeps intermediate values in the cache.

    A chunk's intermediate values are computed again for the gradient, not stored.

    Args:
      function: from `[b, ...]` to `[b, ...]`, for any b; each image is computed independently.
      x: `[b, ...]`, of the dtype of the intermediate values.
      floats: how many intermediate numbers `function` writes for an image.
      most: how many bytes a chunk may write. If one image writes more, the batch is not cut.

    Returns:
      `function(x)`.
    """
    batch, image = len(x), floats * x.dtype.itemsize
    # A batch that is split over devices would have to be gathered before it is cut.
    if jax.device_count() > 1 or not batch or not image or image > most:
        return function(x)
    chunk = max(size for size in range(1, min(most // image, batch) + 1) if batch % size == 0)
    if chunk == batch:
        return function(x)
    y = lax.map(jax.checkpoint(function, prevent_cse=False), x.reshape(batch // chunk, chunk, *x.shape[1:]))
    return y.reshape(batch, *y.shape[2:])
