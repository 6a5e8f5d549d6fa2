"""The loss, and metrics as sums and counts: batches merge exactly and padded examples weigh nothing."""

import flax.struct
import jax
import jax.numpy as jnp
import optax


def cross_entropy(*, logits: jax.Array, labels: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """The weighted mean of -log softmax(logits)[label], in float32.

    Args:
      logits: float [b, t].
      labels: int [b], in [0, t).
      weights: float or bool [b], 0 for padding; None is all ones.

    Returns:
      A float32 scalar; nan if the weights sum to zero.
    """
    metrics = Metrics.of(logits=logits, labels=labels, weights=weights)
    return metrics.loss


@flax.struct.dataclass
class Metrics:
    """Sums over examples, float32 scalars; counts are exact up to 2^24 examples."""

    loss_sum: jax.Array
    correct: jax.Array
    count: jax.Array

    @classmethod
    def zero(cls) -> "Metrics":
        """No examples yet: what `merge` starts from."""
        return cls(*(jnp.zeros((), jnp.float32) for _ in range(3)))

    @classmethod
    def of(cls, *, logits: jax.Array, labels: jax.Array, weights: jax.Array | None = None) -> "Metrics":
        """The sums of one batch; arguments as in `cross_entropy`.

        Of equal largest logits the first is the prediction.
        """
        logits = logits.astype(jnp.float32)
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
        correct = jnp.argmax(logits, axis=-1) == labels
        if weights is None:
            weights = jnp.ones_like(losses)
        weights = weights.astype(jnp.float32)
        # Not a bare product: a padded example may hold anything, and 0 * nan is nan.
        losses = jnp.where(weights > 0, weights * losses, 0.0)
        return cls(loss_sum=losses.sum(), correct=(weights * correct).sum(), count=weights.sum())

    def merge(self, other: "Metrics") -> "Metrics":
        """The sums over both sets of examples."""
        return jax.tree.map(jnp.add, self, other)

    @property
    def loss(self) -> jax.Array:
        """The mean loss, float32 scalar; nan without examples."""
        return self.loss_sum / self.count

    @property
    def accuracy(self) -> jax.Array:
        """The share of examples classified correctly, in [0, 1]; nan without examples."""
        return self.correct / self.count
