"""The loss, and metrics as `clu.metrics` collections: sums that merge over batches, in which padding does not count."""

import clu.metrics
import flax.struct
import jax
import jax.numpy as jnp
import optax

from vpns_jax.training.calibration import CalibrationError


@flax.struct.dataclass
# clu makes the base class at run time, where mypy cannot follow.
class Loss(clu.metrics.Average.from_output("loss")):  # type: ignore[misc]
    """The mean of the losses of examples."""


def cross_entropy(*, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Computes the mean of -log softmax(logits)[label], in float32.

    Args:
      logits: float [b, t].
      labels: int32 [b], in [0, t).

    Returns:
      A float32 scalar.
    """
    return Metrics.of(logits=logits, labels=labels).loss.compute()


@flax.struct.dataclass
class Metrics(clu.metrics.Collection):
    """The mean loss, and the accuracy; of several equal largest logits the first is the prediction."""

    loss: Loss
    accuracy: clu.metrics.Accuracy

    @classmethod
    def of(cls, *, logits: jax.Array, labels: jax.Array) -> "Metrics":
        """Makes the metrics of one batch.

        Args:
          logits: float [b, t].
          labels: int32 [b], in [0, t).

        Returns:
          The metrics.
        """
        return cls.single_from_model_output(**outputs(logits, labels))


@flax.struct.dataclass
class Evaluated(clu.metrics.Collection):
    """The metrics of a network on a whole split."""

    loss: Loss
    accuracy: clu.metrics.Accuracy
    calibration_error: CalibrationError

    @classmethod
    def of(cls, *, logits: jax.Array, labels: jax.Array, mask: jax.Array) -> "Evaluated":
        """Makes the metrics of one batch.

        Args:
          logits: float [b, t].
          labels: int32 [b], in [0, t).
          mask: bool or float [b], 0 for padding, whose values do not matter.

        Returns:
          The metrics.
        """
        return cls.single_from_model_output(**outputs(logits, labels), mask=mask > 0)


def outputs(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """Computes the values from which metrics are made, in float32.

    Args:
      logits: float [b, t].
      labels: int32 [b], in [0, t).

    Returns:
      The values, by the names that `clu.metrics` uses.
    """
    logits = logits.astype(jnp.float32)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    return {"logits": logits, "labels": labels, "loss": losses}
