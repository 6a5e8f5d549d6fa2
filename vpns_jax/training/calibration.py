"""Whether a network is as often right as it is sure: sums that merge over batches, as `Metrics` are."""

import flax.struct
import jax
import jax.numpy as jnp

BINS = 15


@flax.struct.dataclass
class Calibration:
    """Sums over examples, by confidence: the expected calibration error of Guo et al. (arXiv 1706.04599, eq. 3).

    The confidence of an example is its largest softmax probability; bin m of M holds ((m - 1) / M, m / M].

    Attributes:
      gap: float32 [BINS], the number of right answers less the sum of confidences.
      count: float32 scalar, the number of examples.
    """

    gap: jax.Array
    count: jax.Array

    @classmethod
    def zero(cls) -> "Calibration":
        """No examples yet: what `merge` starts from."""
        return cls(jnp.zeros(BINS, jnp.float32), jnp.zeros((), jnp.float32))

    @classmethod
    def of(cls, *, logits: jax.Array, labels: jax.Array, weights: jax.Array) -> "Calibration":
        """The sums of one batch: logits float [b, t], labels int [b], weights float or bool [b], 0 for padding."""
        logits, weights = logits.astype(jnp.float32), weights.astype(jnp.float32)
        confidence = jnp.max(jax.nn.softmax(logits), axis=-1)
        correct = jnp.argmax(logits, axis=-1) == labels
        bins = jnp.clip(jnp.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(jnp.int32)
        # Not a bare product: a padded example may hold anything, and 0 * nan is nan.
        gaps = jnp.where(weights > 0, weights * (correct - confidence), 0.0)
        # Not a matrix product either, which accelerators round.
        return cls(gap=jnp.sum(gaps[:, None] * jax.nn.one_hot(bins, BINS), axis=0), count=weights.sum())

    def merge(self, other: "Calibration") -> "Calibration":
        """The sums over both sets of examples."""
        return jax.tree.map(jnp.add, self, other)

    @property
    def error(self) -> jax.Array:
        """The mean over examples of their bin's |accuracy - confidence|, in [0, 1]; nan without examples."""
        return jnp.abs(self.gap).sum() / self.count
