"""Label mapping: which of the s pretrained classes stands for each of the t target classes.

A mapping is an int array `[t]` of source classes, each used at most once (Chen et al., "Understanding and Improving
Visual Prompting: A Label-Mapping Perspective", arXiv 2211.11635).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax.errors import UserError

# The kinds of mapping: counted once, counted again every epoch, random, or replaced by a new linear head.
KINDS = ("frequency", "iterative", "random", "head")


def check_sizes(source_classes: int, target_classes: int) -> None:
    """Checks that each target class can have its own source class.

    Args:
      source_classes: s.
      target_classes: t.

    Raises:
      UserError: t is larger than s.
    """
    if target_classes > source_classes:
        raise UserError(
            f"{target_classes} target classes, but the pretrained head has {source_classes}: label mapping gives "
            f"each its own source class; mapping head fits a new head of any size"
        )


def count_predictions(
    source_logits: jax.Array, labels: jax.Array, weights: jax.Array, target_classes: int
) -> jax.Array:
    """Counts how many images of each target class are predicted as each source class.

    Args:
      source_logits: float `[b, s]`.
      labels: int `[b]` in 0 ... t - 1.
      weights: `[b]`, one for images that count and zero for padding.
      target_classes: t.

    Returns:
      int32 `[s, t]`.
    """
    counts = jnp.zeros((source_logits.shape[-1], target_classes), jnp.int32)
    return counts.at[jnp.argmax(source_logits, axis=-1), labels].add(weights.astype(jnp.int32))


def frequency(counts: np.ndarray) -> np.ndarray:
    """Frequency label mapping: repeatedly takes the most frequent (source, target) pair among the free classes.

    Ties, and target classes without any image, are decided by the lowest source class, then the lowest target class.

    Args:
      counts: int `[s, t]` of `count_predictions`.

    Returns:
      int32 `[t]`, distinct source classes.

    Raises:
      UserError: t is larger than s.
    """
    left = np.array(counts, np.int64)
    s, t = left.shape
    check_sizes(s, t)
    mapping = np.full(t, -1, np.int32)
    for _ in range(t):
        source, target = divmod(int(np.argmax(left)), t)
        mapping[target] = source
        left[source, :] = -1
        left[:, target] = -1
    return mapping


def random(rng: jax.Array, source_classes: int, target_classes: int) -> jax.Array:
    """Draws a random mapping.

    Args:
      rng: a random key.
      source_classes: s.
      target_classes: t.

    Returns:
      int32 `[t]`, distinct source classes.

    Raises:
      UserError: t is larger than s.
    """
    check_sizes(source_classes, target_classes)
    return _first_of_permuted(rng, source_classes, target_classes)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _first_of_permuted(rng: jax.Array, classes: int, count: int) -> jax.Array:
    return jax.random.permutation(rng, classes)[:count].astype(jnp.int32)


def apply(source_logits: jax.Array, mapping: jax.Array) -> jax.Array:
    """Maps source logits `[b, s]` to the logits of the target classes `[b, t]`."""
    return source_logits[:, mapping]
