"""A network with 68 prunable weights for 8 x 8 images, which compiles fast, to test everything around networks."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vpns_jax import models, prompting, sparsity
from vpns_jax.training.batches import Resident
from vpns_jax.training.network import Network, Subnetwork
from vpns_jax.training.optimizers import Optimizer, Schedule
from vpns_jax.training.stage import Recipe, learn_both, learn_prompt, learn_scores, learn_weights

SIZE, CLASSES, SOURCE_CLASSES, IMAGES, BATCH = 8, 3, 5, 24, 8


class Tiny(nn.Module):
    """One strided convolution, batch normalization, pooling and a head, with the same names as in the real networks."""

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


LENGTH = Schedule(epochs=4, updates_per_epoch=3)


def optimizer(name="sgd", learning_rate=0.1, **changes):
    fields = {
        "momentum": 0.9,
        "weight_decay": 1e-2,
        "decay": "coupled",
        "schedule": "constant",
        "warmup_epochs": 0.0,
    }
    return Optimizer(optimizer=name, learning_rate=learning_rate, **fields | changes)


OPTIMIZERS = {
    "scores": optimizer("adam", 1e-2),
    "weights": optimizer(),
    "prompt": optimizer(),
    "head": optimizer(),
}


def begin(learns="scores", *, network=None, density=0.5, mask=None, new_head=False, protocol="paper", **recipe):
    """Makes a stage that learns "scores", "weights", "both" or a "prompt", and its first state."""
    network = globals()["network"]() if network is None else network
    arrays = variables()
    optimizers = OPTIMIZERS | recipe.pop("optimizers", {})
    made = Recipe(protocol, BATCH, LENGTH.epochs, optimizers, **recipe)
    exclude = (models.HEAD,) if new_head else ()
    scores = sparsity.scaled_init(models.prunable(arrays["params"], exclude=exclude))
    pruned = sparsity.pruned_count(scores, density)
    if learns in ("weights", "prompt") and mask is None:
        mask = sparsity.prune_smallest(scores, pruned)
    start = Subnetwork(
        weights=arrays["params"],
        mask={} if mask is None else mask,
        batch_stats=arrays["batch_stats"],
        prompt=network.prompt.init(),
        mapping=staged(np.asarray([4, 0, 2], np.int32)),
    )
    iterations = LENGTH.updates_per_epoch
    if learns == "weights":
        return learn_weights(network, start, made, iterations)
    if learns == "prompt":
        return learn_prompt(network, start, made, iterations)
    groups = {"pruned": pruned, "pattern": sparsity.Pattern()}
    if learns == "both":
        return learn_both(network, start, scores, made, iterations, **groups, gamma=1.0)
    return learn_scores(network, start, scores, made, iterations, **groups, new_head=new_head)


def variables(seed=0):
    return staged(_drawn(seed))


@jax.jit
def staged(tree):
    """Puts arrays on the devices, in the mesh if there is one; `jnp.asarray` would compile a program for each shape."""
    return tree


@functools.cache
def _drawn(seed):
    """The first variables, on the host: devices may change between tests."""
    return jax.device_get(_init(seed))


@jax.jit
def _init(seed):
    return Tiny().init(jax.random.key(seed), jnp.zeros((1, SIZE, SIZE, 3)))


def split(count=IMAGES, *, seed=0, augmented=False):
    """Makes images whose brightness depends on their class, so that the classes can be learned.

    Without random crops and flips, programs of whole epochs compile in two thirds of the time.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    images = rng.integers(0, 90, (count, SIZE, SIZE, 3)) + 80 * labels[:, None, None, None]
    large = np.pad(images, ((0, 0), (0, int(augmented)), (0, int(augmented)), (0, 0)), mode="edge")
    arrays = images.astype(np.uint8), labels.astype(np.int32), large.astype(np.uint8)
    return Resident(*staged(arrays), flip=augmented)


def batches(stage, *, seed=0):
    """Makes one batch for each pass."""
    data = jax.device_get(split(BATCH * len(stage.passes), seed=seed))
    return tuple(
        staged(tuple(x[i * BATCH : (i + 1) * BATCH] for x in (data.images, data.labels)))
        for i in range(len(stage.passes))
    )


def same(left, right):
    """Returns whether two trees are equal bit for bit."""
    if jax.tree.structure(left) != jax.tree.structure(right):
        return False
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)
