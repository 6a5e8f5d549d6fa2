"""Calibration: whether a network's confidence agrees with its accuracy."""

from typing import Any

import clu.metrics
import flax.struct
import jax
import jax.numpy as jnp

BINS = 15


@flax.struct.dataclass
class CalibrationError(clu.metrics.Metric):
    """The expected calibration error of Guo et al. (arXiv 1706.04599, eq. 3), from sums over examples in bins.

    The confidence of an example is its largest softmax probability. Bin m of M holds confidences in ((m - 1) / M, m /
    M].

    Attributes:
      gap: float32 [BINS], the number of correct predictions minus the sum of confidences.
      count: int32 scalar, the number of examples.
    """

    gap: jax.Array
    count: jax.Array

    @classmethod
    def empty(cls) -> "CalibrationError":
        """Makes the sums of no examples.

        Returns:
          Zeros.
        """
        return cls(jnp.zeros(BINS, jnp.float32), jnp.zeros((), jnp.int32))

    @classmethod
    def from_model_output(
        cls, *, logits: jax.Array, labels: jax.Array, mask: jax.Array, **others: Any
    ) -> "CalibrationError":
        """Makes the sums of one batch.

        Args:
          logits: float [b, t].
          labels: int32 [b].
          mask: bool [b], False for padding, whose values do not matter.
          **others: values for other metrics of a collection; not used.

        Returns:
          The sums.
        """
        del others
        confidence = jnp.max(jax.nn.softmax(logits.astype(jnp.float32)), axis=-1)
        correct = jnp.argmax(logits, axis=-1) == labels
        bins = jnp.clip(jnp.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(jnp.int32)
        # `where`, not a product with the mask: 0 * nan is nan.
        gaps = jnp.where(mask, correct - confidence, 0.0)
        # A sum, not a matrix product, which accelerators round.
        return cls(gap=jnp.sum(gaps[:, None] * jax.nn.one_hot(bins, BINS), axis=0), count=mask.sum(dtype=jnp.int32))

    def merge(self, other: "CalibrationError") -> "CalibrationError":
        """Adds the sums of other examples.

        Args:
          other: their sums.

        Returns:
          The sums over both sets of examples.
        """
        return jax.tree.map(jnp.add, self, other)

    def compute(self) -> jax.Array:
        """Computes the mean over examples of |accuracy - confidence| of their bin.

        Returns:
          A float32 scalar in [0, 1]; nan without examples.
        """
        return jnp.abs(self.gap).sum() / self.count
