"""Networks and data that stand for those of users: factories by name, some of which do not fit."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from examples.own_network import Net
from tests.models import foreign
from tests.training import tiny
from vpns_jax import models

SIZE = 8


class Mixer(nn.Module):
    """An MLP-Mixer (arXiv 2105.01601) with batch normalization, dropout, and a head inside of another module's name."""

    num_classes: int

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.Conv(6, (2, 2), (2, 2), name="patches")(x)
        x = nn.BatchNorm(use_running_average=not train, name="bn")(x).reshape(x.shape[0], -1, 6)
        y = nn.LayerNorm(name="norm1", use_bias=False)(x).swapaxes(1, 2)
        y = nn.Dense(x.shape[1], name="tokens2")(nn.gelu(nn.Dense(5, name="tokens1")(y)))
        x = x + y.swapaxes(1, 2)
        x = x + nn.Dense(6, name="channels2")(nn.gelu(nn.Dense(7, name="channels1")(nn.LayerNorm(name="norm2")(x))))
        x = nn.Dropout(0.1, deterministic=not train)(x.mean(1))
        return Classifier(self.num_classes, name="top")(x)


class Classifier(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)(x)


class Concatenated(nn.Module):
    """A plain network of two branches that are concatenated."""

    num_classes: int = 5

    @nn.compact
    def __call__(self, x, train):
        branches = [nn.relu(nn.Conv(3, (size, size), (2, 2), name=f"conv{size}")(x)) for size in (1, 3)]
        return nn.Dense(self.num_classes, name="head")(jnp.concatenate(branches, -1).mean((1, 2)))


@functools.cache
def drawn(module):
    """Weights to load, drawn by NumPy: compiling the initialization takes longer than anything else in loading."""
    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return rng.normal(0, math.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)
        return np.full(leaf.shape, {"scale": 1, "var": 1}.get(name, 0.1 if name.startswith("gamma") else 0), np.float32)

    shapes = jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), images)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def make_net(num_classes, width=4, depth=1):
    """The example's network, smaller, with weights to load."""
    module = functools.partial(Net, width=width, depth=depth)

    def load():
        return drawn(module(tiny.SOURCE_CLASSES))

    mean, std = (0.5, 0.25, 0.125), (0.25, 0.5, 1.0)
    return models.OwnModel(module(num_classes), head="classifier", load=load, mean=mean, std=std)


def make_branches(num_classes, width=4, depth=1):
    """Branches that are concatenated twice, with batch normalization and weights to load."""
    del width, depth

    def load():
        return drawn(foreign.Concatenated(num_classes=tiny.SOURCE_CLASSES))

    return models.OwnModel(foreign.Concatenated(num_classes=num_classes), load=load)


def make_mixer(num_classes, dropout=0.1):
    del dropout
    return models.OwnModel(Mixer(num_classes), head="top/Dense_0")


class Chunked(nn.Module):
    """A network that asks how many images there are, and so takes no batch of unknown size."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        halves = jnp.split(x, 2) if len(x) % 2 == 0 else [x]
        return nn.Dense(self.num_classes, name="head")(jnp.concatenate(halves).mean((1, 2)))


def make_chunked(num_classes):
    return Chunked(num_classes)


def make_plain(num_classes):
    return Concatenated(num_classes)


def make_data():
    """The classes differ in brightness."""
    splits = {"train": tiny.split(), "val": tiny.split(seed=1), "test": tiny.split(seed=2)}
    pairs = {
        split: [(np.asarray(image), int(label)) for image, label in zip(data.images, data.labels, strict=True)]
        for split, data in splits.items()
    }
    return pairs | {"classes": ("a", "b", "c")}
