"""VPNs on your own Equinox network: partitioned into arrays and the rest, it is a function like any other.

Run it with the extra `bundled`, which has the digits: `python -m examples.own_equinox`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from vpns_jax import prompting, sparsity

DENSITY = 0.1


class Net(eqx.Module):
    """Your network."""

    conv1: eqx.nn.Conv2d
    conv2: eqx.nn.Conv2d
    head: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.conv1 = eqx.nn.Conv2d(3, 32, 3, stride=2, padding=1, key=keys[0])
        self.conv2 = eqx.nn.Conv2d(32, 64, 3, stride=2, padding=1, key=keys[1])
        self.head = eqx.nn.Linear(576, 10, key=keys[2])

    def __call__(self, x):
        """Computes logits [10] of one image [12, 12, 3]."""
        x = jax.nn.relu(self.conv1(x.transpose(2, 0, 1)))
        return self.head(jax.nn.relu(self.conv2(x)).reshape(-1))


def main(steps: int = 300) -> tuple[eqx.Module, float]:
    """Prunes, retrains and tests.

    Args:
      steps: optimizer steps of each stage.

    Returns:
      The weights, and the share of 297 test images that are classified correctly.
    """
    images = jnp.asarray(np.repeat(load_digits().images[..., None] / 16, 3, axis=-1), jnp.float32)
    labels = jnp.asarray(load_digits().target)
    prompt = prompting.create("expand", canvas_size=12, pad_size=2)
    params, rest = eqx.partition(Net(jax.random.key(0)), eqx.is_inexact_array)  # Yours is pretrained.

    def classify(params, frame, images):
        return jax.vmap(eqx.combine(params, rest))(prompt.apply(frame, images))

    def loss_fn(params, frame, batch):
        logits = classify(params, frame, images[batch])
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean()

    # Stage 1: the weights are frozen; scores and a prompt are learned.
    def masked_loss(learned, frozen, batch):
        return sparsity.with_scores(loss_fn, frozen, DENSITY)(learned["scores"], learned["prompt"], batch)

    start = {"scores": sparsity.first_scores(params), "prompt": prompt.init()}
    learned = train(masked_loss, optax.adam(1e-2), start, params, steps)
    mask = sparsity.topk_mask(learned["scores"], DENSITY)

    # Stage 2: the mask is fixed; the weights that are left are retrained together with the prompt.
    def retraining_loss(learned, _, batch):
        return loss_fn(learned["params"], learned["prompt"], batch)

    tx = sparsity.keep_mask(optax.adam(1e-3), {"params": mask})
    learned = train(retraining_loss, tx, {"params": params, "prompt": learned["prompt"]}, {}, steps)
    logits = jax.jit(classify)(learned["params"], learned["prompt"], images[1500:])
    correct = jnp.mean(logits.argmax(-1) == labels[1500:])
    print(f"density {float(sparsity.density(mask)):.3f}, correct {float(correct):.1%}")
    return learned["params"], float(correct)


def train(loss, tx, learned, frozen, steps):
    """Your loop: any optimizer, any batches."""

    @jax.jit
    def step(learned, state, frozen, batch):
        updates, state = tx.update(jax.grad(loss)(learned, frozen, batch), state, learned)
        return optax.apply_updates(learned, updates), state

    state = tx.init(learned)
    for i in range(steps):
        batch = jax.random.randint(jax.random.key(i), (64,), 0, 1500)
        learned, state = step(learned, state, frozen, batch)
    return learned


if __name__ == "__main__":
    main()
