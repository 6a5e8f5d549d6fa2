"""Finished networks of every family, cut to a few layers: pruned, prompted, with a head that is mapped."""

import dataclasses

import jax
import numpy as np

from vpns_jax import models, prompting
from vpns_jax.deploy import Classifier, Description
from vpns_jax.models import initializing
from vpns_jax.models.registry import ENTRIES
from vpns_jax.training.network import Subnetwork
from vpns_jax.trees import flatten, unflatten

SIDE, CLASSES = 16, ("cat", "dog", "日本")


def cut(name, **architecture):
    entry = ENTRIES[name]
    return dataclasses.replace(entry, architecture=dict(entry.architecture) | architecture)


NARROW = {"width": 1 / 16}
# Name: its entry, and the options that make it small.
SMALL = {
    "small_basic": (cut("resnet18", depths=(1, 1)), NARROW | {"width": 1 / 8}),
    "small_stem": (cut("resnet18", depths=(2, 1)), NARROW | {"stem": "small"}),
    "small_bottleneck": (cut("resnet50", depths=(1, 1)), NARROW),
    "small_vgg": (cut("vgg16", stages=((2, 128), (1, 256))), NARROW),
    "small_vgg_bn": (cut("vgg16_bn", stages=((1, 128), (1, 256))), NARROW),
    "small_vit": (cut("vit_ti16", features=128, depth=2, patch=8), {}),
    "small_deit": (cut("deit_ti16_distilled", features=64, depth=1, patch=8), {}),
    "small_convnext": (cut("convnext_tiny", depths=(1, 1)), {"width": 1 / 6}),
}


def register(monkeypatch):
    for name, (entry, _) in SMALL.items():
        monkeypatch.setitem(ENTRIES, name, entry)


def classifier(name, *, prompt="pad", density=0.3, seed=0, **changes):
    """A network half of whose channels are dead, by a mask of single weights; all else is drawn."""
    image_size = SIDE - 4 if prompt in ("expand", "none") else SIDE
    made = prompting.create(prompt, canvas_size=SIDE, pad_size=2, patch_size=5)
    facts = {"image_size": image_size, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "classes": CLASSES}
    description = Description(model=name, prompt=made, options=dict(SMALL[name][1]), **facts | changes)
    model = description.network(7).model
    shapes = initializing.shapes(model, image_size=SIDE)
    rng = np.random.default_rng(seed)
    leaves = {path: draw(path, leaf, rng) for path, leaf in flatten(shapes).items()}
    params = unflatten(leaves)["params"]
    mask = {path: rng.random(leaf.shape) < density for path, leaf in flatten(models.prunable(params)).items()}
    for path, keep in mask.items():
        if "conv" in path or "fc1" in path:
            keep[..., rng.random(keep.shape[-1]) < 0.5] = False
        if path == "block_0/attention/value/kernel":
            keep[:, :64] = False
    weights = {path: np.where(mask.get(path, True), leaf, np.float32(0)) for path, leaf in flatten(params).items()}
    subnetwork = Subnetwork(
        weights=unflatten(weights),
        mask=unflatten(mask),
        batch_stats=unflatten(leaves).get("batch_stats", {}),
        prompt={key: rng.normal(size=shape).astype(np.float32) for key, shape in made.shapes().items()},
        mapping=np.asarray([5, 0, 3], np.int32),
    )
    return Classifier(description, jax.device_put(subnetwork))


def draw(path, leaf, rng):
    if path.endswith("kernel"):
        return (rng.normal(size=leaf.shape) * np.sqrt(6 / np.prod(leaf.shape[:-1]))).astype(np.float32)
    if path.endswith(("scale", "var")):
        return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
    return (rng.normal(size=leaf.shape) * 0.3).astype(leaf.dtype)


def images(classifier, count=3):
    side = classifier.description.image_size
    return np.random.default_rng(1).integers(0, 256, (count, side, side, 3), np.uint8)
