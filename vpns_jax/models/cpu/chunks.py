"""Batches in chunks that fit a CPU's cache."""

from collections.abc import Callable

import jax
from jax import lax


def in_chunks(function: Callable[[jax.Array], jax.Array], x: jax.Array, floats: int, *, most: int) -> jax.Array:
    """`function(x)`, taken in chunks of the batch if that keeps in the cache what it writes on the way.

    What a chunk wrote is computed again for the gradient, not kept.

    Args:
      function: from `[b, ...]` to `[b, ...]`, for any b, each image for itself.
      x: `[b, ...]`, one dtype with what `function` writes.
      floats: how many numbers it writes for an image.
      most: how many bytes a chunk may write. An image that takes more is not helped by chunks.
    """
    batch, image = len(x), floats * x.dtype.itemsize
    # A batch that is split over devices would have to be gathered to be cut in another way.
    if jax.device_count() > 1 or image > most:
        return function(x)
    chunk = max(size for size in range(1, min(most // image, batch) + 1) if batch % size == 0)
    if chunk == batch:
        return function(x)
    y = lax.map(jax.checkpoint(function, prevent_cse=False), x.reshape(batch // chunk, chunk, *x.shape[1:]))
    return y.reshape(batch, *y.shape[2:])
