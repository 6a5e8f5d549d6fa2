"""The loss, and metrics as `clu.metrics` collections: sums that merge over batches, where padding counts nothing."""

import clu.metrics
import flax.struct
import jax
import jax.numpy as jnp
import optax

from vpns_jax.training.calibration import CalibrationError


@flax.struct.dataclass
class Loss(clu.metrics.Average.from_output("loss")):  # type: ignore[misc]
    """The mean of the losses of examples."""


def cross_entropy(*, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean of -log softmax(logits)[label], in float32.

    Args:
      logits: float [b, t].
      labels: int [b], in [0, t).

    Returns:
      A float32 scalar.
    """
    return Metrics.of(logits=logits, labels=labels).loss.compute()


@flax.struct.dataclass
class Metrics(clu.metrics.Collection):
    """The mean loss and the share of right answers; of equal largest logits the first is the answer."""

    loss: Loss
    accuracy: clu.metrics.Accuracy

    @classmethod
    def of(cls, *, logits: jax.Array, labels: jax.Array) -> "Metrics":
        """The metrics of one batch.

        Args:
          logits: float [b, t].
          labels: int32 [b], in [0, t).
        """
        return cls.single_from_model_output(**outputs(logits, labels))


@flax.struct.dataclass
class Evaluated(clu.metrics.Collection):
    """What is measured of a network on a whole split."""

    loss: Loss
    accuracy: clu.metrics.Accuracy
    calibration_error: CalibrationError

    @classmethod
    def of(cls, *, logits: jax.Array, labels: jax.Array, mask: jax.Array) -> "Evaluated":
        """The metrics of one batch.

        Args:
          logits: float [b, t].
          labels: int32 [b], in [0, t).
          mask: bool or float [b], 0 for padding, which may hold anything.
        """
        return cls.single_from_model_output(**outputs(logits, labels), mask=mask > 0)


def outputs(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """What metrics are made of, by the names that `clu.metrics` has for it; all in float32."""
    logits = logits.astype(jnp.float32)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    return {"logits": logits, "labels": labels, "loss": losses}
