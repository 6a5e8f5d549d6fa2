"""The order of images: pure functions of a key and an epoch, so that a resumed run sees the same batches."""

import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax.data import plan


def epoch_order(key: jax.Array, epoch: int | jax.Array, n: int, batch_size: int) -> jax.Array:
    """A random permutation of the images, cut into batches. The remainder is left out, a different one each epoch.

    Args:
      key: the run's random key.
      epoch: the epoch's number; may be traced.
      n: number of images.
      batch_size: b, at most n.

    Returns:
      int32 `[steps, b]`, distinct indices below n, with steps = n // b.

    Raises:
      UserError: a batch is empty or larger than the data set.
    """
    plan.check_batch(batch_size, n)
    order = jax.random.permutation(jax.random.fold_in(key, epoch), n)
    steps = n // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size).astype(jnp.int32)


def padded_batches(n: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """All n images in order, cut into batches; the last batch is padded with images of weight zero.

    Args:
      n: number of images.
      batch_size: b.

    Returns:
      Indices int32 `[steps, b]` below n, and weights float32 `[steps, b]`, one for each image and zero for padding.
    """
    steps = -(-n // batch_size)
    place = np.arange(steps * batch_size, dtype=np.int32).reshape(steps, batch_size)
    return plan.padded(place, n)
