"""Functions that make networks which do not fit, each in one way."""

import flax.linen as nn
import jax.numpy as jnp

from tests.own.networks import Concatenated
from vpns_jax import models


class Net(nn.Module):
    """A network whose faults are its fields."""

    num_classes: int = 5
    head: str = "head"
    bias: bool = True
    dtype: type = jnp.float32
    counts: bool = False
    map: bool = False
    several: bool = False
    noise: bool = False
    starts_late: bool = False
    field: object = None

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(3, (2, 2), (2, 2), name="conv", param_dtype=self.dtype)(x)
        if self.counts:
            self.variable("cache", "count", lambda: jnp.zeros(()))
        if self.starts_late and train:
            x = nn.BatchNorm(use_running_average=False, name="late")(x)
        if self.noise and train:
            x = x + self.make_rng("noise").astype(jnp.float32)
        if not self.map:
            x = x.mean((1, 2))
        x = nn.Dense(self.num_classes, use_bias=self.bias, name=self.head)(x)
        return (x, x) if self.several else x


class WithoutTrain(nn.Module):
    @nn.compact
    def __call__(self, images, deterministic):
        return nn.Dense(5, name="head")(images.mean((1, 2)))


class WithoutKernels(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        kernel, bias = self.param("w", nn.initializers.ones, (3, 5)), self.param("b", nn.initializers.zeros, (5,))
        return images.mean((1, 2)) @ kernel + bias


def raises(num_classes):
    raise RuntimeError("no disk\nno dinner")


def no_module(num_classes):
    return {"module": Net(num_classes)}


def bound(num_classes):
    return Net(num_classes).apply


def not_called_so(classes):
    return Net(classes)


def needs_depth(num_classes, depth):
    return Net(num_classes)


def without_train(num_classes):
    return WithoutTrain()


def without_kernels(num_classes):
    return WithoutKernels()


def unhashable(num_classes):
    return Net(num_classes, field=bytearray(1))


def other_head(num_classes):
    return Net(num_classes, head="Dense_7")


def two_heads(num_classes):
    return models.OwnModel(Net(num_classes), head="conv")


def no_bias(num_classes):
    return Net(num_classes, bias=False)


def other_classes(num_classes):
    return Net(num_classes + 1)


def half(num_classes):
    return Net(num_classes, dtype=jnp.bfloat16)


def cache(num_classes):
    return Net(num_classes, counts=True)


def of_maps(num_classes):
    return Net(num_classes, map=True)


def of_pairs(num_classes):
    return Net(num_classes, several=True)


def noisy(num_classes):
    return Net(num_classes, noise=True)


def late(num_classes):
    return Net(num_classes, starts_late=True)


def load_fails(num_classes):
    return models.OwnModel(Concatenated(num_classes), load=lambda: 1 / 0)


def load_other(num_classes):
    return models.OwnModel(Concatenated(num_classes), load=lambda: [1])


def load_misfit(num_classes):
    return models.OwnModel(Concatenated(num_classes), load=lambda: {"params": {"conv1": {"kernel": jnp.ones((2, 2))}}})


def load_two_heads(num_classes):
    part = {"kernel": jnp.ones((3, 5)), "bias": jnp.ones(5)}
    params = {"conv": {}, "classifier": part, "head": {"kernel": jnp.zeros((3, 5)), "bias": jnp.zeros(5)}}
    net = Net(num_classes, head="classifier")
    return models.OwnModel(net, head="classifier", load=lambda: {"params": params})


def load_nothing(num_classes):
    return Concatenated(num_classes)


def dark(num_classes):
    return models.OwnModel(Concatenated(num_classes), std=(0.0, 0.5, 0.5))


def seeded(num_classes, seed=0):
    return Concatenated(num_classes)


constant = 3
