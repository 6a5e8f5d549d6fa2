"""Label mapping: which of the s pretrained classes speaks for each of the t target classes.

A mapping is an int array [t] of source classes, each used at most once (Chen et al., "Understanding and Improving
Visual Prompting: A Label-Mapping Perspective", arXiv 2211.11635).
"""

import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax.errors import UserError

# How a mapping comes about: counted once, counted anew every epoch, drawn by lot, or replaced by a new linear head.
KINDS = ("frequency", "iterative", "random", "head")


def check_sizes(source_classes: int, target_classes: int) -> None:
    """Raises `UserError` unless each target class can have a source class of its own."""
    if target_classes > source_classes:
        raise UserError(
            f"{target_classes} target classes, but the pretrained head has {source_classes}: label mapping gives "
            f"each a source class of its own; mapping head fits a new head of any size"
        )


def count_predictions(
    source_logits: jax.Array, labels: jax.Array, weights: jax.Array, target_classes: int
) -> jax.Array:
    """int32 [s, t]: how many images of target class t are predicted as source class s.

    Args:
      source_logits: float [b, s].
      labels: int [b] in 0 ... t - 1.
      weights: [b], one for images that count and zero for padding.
      target_classes: t.
    """
    counts = jnp.zeros((source_logits.shape[-1], target_classes), jnp.int32)
    return counts.at[jnp.argmax(source_logits, axis=-1), labels].add(weights.astype(jnp.int32))


def frequency(counts: np.ndarray) -> np.ndarray:
    """Frequency label mapping: again and again the most frequent (source, target) pair of those still free.

    Ties, and target classes no image of which was seen, go to the lowest source class and then the lowest target.

    Args:
      counts: int [s, t] of `count_predictions`.

    Returns:
      int32 [t], distinct source classes.
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
    """int32 [t]: distinct source classes drawn by lot."""
    check_sizes(source_classes, target_classes)
    return jax.random.permutation(rng, source_classes)[:target_classes].astype(jnp.int32)


def apply(source_logits: jax.Array, mapping: jax.Array) -> jax.Array:
    """Source logits [b, s] to the logits of the target classes [b, t]."""
    return source_logits[:, mapping]
