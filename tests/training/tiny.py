"""A network of 46 weights on 8 x 8 images, which compiles in no time: for tests of everything around the network."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax import models, prompting, sparsity
from vpns_jax.training import optim, steps
from vpns_jax.training import state as states
from vpns_jax.training.batches import Resident
from vpns_jax.training.forward import Network

SIZE, CLASSES, SOURCE_CLASSES, IMAGES, BATCH = 8, 3, 5, 24, 8


class Tiny(nn.Module):
    """One strided convolution, batch norm, pooling and a head, under the names the real networks use."""

    num_classes: int = SOURCE_CLASSES

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.Conv(4, (2, 2), (2, 2), use_bias=False, name="conv1")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn1")(x)
        x = nn.relu(x).mean((1, 2))
        return nn.Dense(self.num_classes, name=models.HEAD)(x)


def network(prompt="pad", *, clamp="hard", **sizes):
    sizes = sizes or {"pad_size": 2}
    return Network(
        model=Tiny(),
        prompt=prompting.create(prompt, canvas_size=SIZE, clamp=clamp, **sizes),
        plain=prompting.create("none", canvas_size=SIZE),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


def rule(optimizer="sgd", learning_rate=0.1, **changes):
    fields = {
        "momentum": 0.9,
        "weight_decay": 1e-2,
        "decay": "coupled",
        "schedule": "constant",
        "warmup_epochs": 0.0,
        "epochs": 4,
        "updates_per_epoch": 3,
    }
    return optim.Rule(optimizer=optimizer, learning_rate=learning_rate, **fields | changes)


def task(stage="prune", *, network=None, protocol="paper", batch_norm="update", rules=None):
    if rules is None:
        learned = "scores" if stage == "prune" else "weights"
        rules = {learned: rule("adam", 1e-2) if stage == "prune" else rule(), "prompt": rule()}
    return steps.Task(
        stage=stage,
        network=globals()["network"]() if network is None else network,
        protocol=protocol,
        batch_norm=batch_norm,
        batch_size=BATCH,
        rules=tuple(rules.items()),
    )


def variables(seed=0):
    return Tiny().init(jax.random.key(seed), jnp.zeros((1, SIZE, SIZE, 3)))


def start(task, *, density=0.5, extra=None):
    """A state and what is fixed, at the start of the task's stage."""
    found = variables()
    scores = sparsity.scaled_init(models.prunable(found["params"]))
    pruned = jnp.int32(sparsity.pruned_count(scores, density))
    learned = {"prompt": task.network.prompt.init()} | (extra or {})
    if task.stage == "prune":
        learned["scores"] = scores
        fixed = states.Fixed(weights=found["params"], bits={}, pruned=pruned)
    else:
        learned["weights"] = found["params"]
        mask = sparsity.prune_smallest(scores, pruned)
        fixed = states.Fixed(weights={}, bits=sparsity.pack(mask), pruned=jnp.int32(0))
    mapping = jnp.asarray([4, 0, 2])
    return states.create(task.rules, learned, found["batch_stats"], mapping), fixed


def split(count=IMAGES, *, seed=0):
    """Images whose brightness says their class, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    images = rng.integers(0, 90, (count, SIZE, SIZE, 3)) + 80 * labels[:, None, None, None]
    large = np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    return Resident(
        images=jnp.asarray(images, jnp.uint8),
        labels=jnp.asarray(labels, jnp.int32),
        large=jnp.asarray(large, jnp.uint8),
        flip=True,
    )


def batches(task, *, seed=0):
    """One batch for each pass."""
    data = split(BATCH * len(task.passes), seed=seed)
    return tuple(
        (data.images[i * BATCH : (i + 1) * BATCH], data.labels[i * BATCH : (i + 1) * BATCH])
        for i in range(len(task.passes))
    )


def same(left, right):
    """Whether two trees are equal bit for bit."""
    if jax.tree.structure(left) != jax.tree.structure(right):
        return False
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)
