"""Finished networks to load and to predict with: of the tiny model, so that little is compiled."""

import jax
import numpy as np

from tests.training import tiny
from vpns_jax import prompting, sparsity
from vpns_jax.data import Decoding
from vpns_jax.deploy import Classifier, Description
from vpns_jax.training.network import Subnetwork

CLASSES = ("ok", "scratch, deep", "日本")


def description(prompt="pad", **changes):
    """Sizes that differ where they may, so that none can be taken for another."""
    made = prompting.create(prompt, canvas_size=tiny.SIZE, pad_size=1, patch_size=3)
    facts = {
        "model": "tiny",
        "prompt": made,
        "image_size": 6,
        "mean": (0.5, 0.25, 0.125),
        "std": (0.25, 0.5, 1.0),
        "classes": CLASSES,
        "decoding": Decoding(True, (3, 4095), 10.5),
        "origin": {"method": "vpns", "density": 0.5, "seed": 7, "accuracy": {"test": {"plain": 0.75}}},
    }
    return Description(**facts | changes)


def subnetwork(prompt):
    """Every array of it says something."""
    variables, rng = jax.device_get(tiny.variables(3)), np.random.default_rng(0)
    kernel = variables["params"]["conv1"]["kernel"]
    # The larger half.
    mask = {"conv1": {"kernel": kernel > np.partition(kernel, kernel.size // 2 - 1, axis=None)[kernel.size // 2 - 1]}}
    made = Subnetwork(
        weights=sparsity.apply(variables["params"], mask),
        mask=mask,
        batch_stats=variables["batch_stats"],
        prompt={name: rng.normal(size=shape).astype(np.float32) for name, shape in prompt.shapes().items()},
        mapping=np.asarray([4, 0, 2], np.int32),
    )
    return jax.device_put(made)


def classifier(prompt="pad", **changes):
    made = description(prompt, **changes)
    return Classifier(made, subnetwork(made.prompt))


def images(count, side, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), np.uint8)
