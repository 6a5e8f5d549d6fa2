"""Small networks with variables whose every leaf matters, and with outputs that are dead in all the ways there are."""

import functools

import jax
import numpy as np

from tests.models.test_coupling import quickly
from vpns_jax import models
from vpns_jax.models.resnet import ResNet
from vpns_jax.models.vgg import VGG
from vpns_jax.models.vit import HEAD_DIM, ViT
from vpns_jax.trees import flatten, unflatten

NETWORKS = {
    "basic": ResNet(depths=(2, 1), block="basic", num_classes=5, width=1 / 8, stem="small"),
    "bottleneck": ResNet(depths=(2, 1), block="bottleneck", num_classes=5, width=1 / 16, stem="imagenet"),
    "vgg": VGG(stages=((2, 512), (1, 768)), batch_norm=False, num_classes=5, width=1 / 32, dropout=0.0),
    "vgg_bn": VGG(stages=((2, 512), (1, 768)), batch_norm=True, num_classes=5, width=1 / 32, dropout=0.0),
    "vit": ViT(patch=8, features=2 * HEAD_DIM, depth=2, num_classes=5),
}
SIDE = 16


@functools.cache
def shapes(network):
    return jax.eval_shape(
        NETWORKS[network].init, jax.random.key(0), jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), np.float32)
    )


def drawn(network, rng):
    """Variables whose every leaf matters."""

    def draw(path, leaf):
        if path.endswith("kernel"):
            return rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        if path.endswith(("scale", "var")):
            return rng.uniform(0.5, 1.5, leaf.shape)
        return rng.normal(size=leaf.shape) * 0.3

    leaves = flatten(shapes(network))
    return {path: np.asarray(draw(path, leaf), leaf.dtype) for path, leaf in leaves.items()}


def silence(network, leaves, rng, share):
    """Makes outputs dead, in each of the ways there are: no weight into them, a gate of zero, nobody who reads them."""
    for each in models.channels(NETWORKS[network]):
        if each.fixed:
            continue
        units = leaves[f"params/{each.name}"].shape[-1] // each.width
        dead, way = rng.random(units) < share, rng.integers(3, size=units)
        written, gated, read = (np.repeat(dead & (way == i), each.width) for i in range(3))
        for writer in (*each.writers, *each.companions):
            leaves[f"params/{writer.kernel}"][..., written] = 0
            # What is left says a constant, or nothing at all for some.
            quiet = written & (rng.random(written.size) < 0.3)
            ends = [f"params/{writer.norm}/scale", f"params/{writer.norm}/bias"] if writer.norm else []
            ends = ends or [f"params/{writer.kernel}", f"params/{writer.bias}"]
            for path in ends:
                leaves[path][..., gated | (quiet & (leaves[path].ndim == 1))] = 0
        for reader in each.readers:
            leaves[f"params/{reader.kernel}"][..., np.tile(read, reader.positions), :] = 0


def logits(model, variables, images):
    return np.asarray(quickly(model.apply)(variables, images))


@functools.cache
def images():
    return np.random.default_rng(5).normal(size=(4, SIDE, SIDE, 3)).astype(np.float32)


@functools.cache
def compiled(network):
    return quickly(NETWORKS[network].apply)


def check_equal(network, variables, shrunk, classes=slice(None)):
    before = np.asarray(compiled(network)(variables, images()))[:, classes]
    after = logits(shrunk.model, shrunk.variables, images())
    assert before.std() > 0.05
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * before.std())


def check_equal_in_place(network, variables, shrunk):
    """As `check_equal`, but with what is left in a network of the old size, so that nothing is compiled."""
    before = np.asarray(compiled(network)(variables, images()))
    after = np.asarray(compiled(network)(spread(network, shrunk), images()))
    assert before.std() > 0.05
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * before.std())


def spread(network, shrunk):
    """A smaller network's variables in a network of the old size, zero elsewhere: so nothing is compiled anew."""
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(shrunk.variables).items()}

    def put(path, places, size, axis):
        leaf = np.moveaxis(leaves[path], axis, 0)
        assert len(leaf) == len(places)
        wide = np.zeros((size, *leaf.shape[1:]), leaf.dtype)
        wide[places] = leaf
        leaves[path] = np.moveaxis(wide, 0, axis)

    for each in models.channels(NETWORKS[network]):
        if each.fixed:
            continue
        kept, size = (
            shrunk.kept[each.name.removesuffix("/kernel")],
            flatten(shapes(network))[f"params/{each.name}"].shape[-1],
        )
        for reader in each.readers:
            rows = (np.arange(reader.positions)[:, None] * size + kept).reshape(-1)
            put(f"params/{reader.kernel}", rows, reader.positions * size, -2)
        for writer in (*each.writers, *each.companions):
            paths = [f"params/{path}" for path in (writer.kernel, writer.bias) if path]
            if writer.norm:
                paths += [f"params/{writer.norm}/{leaf}" for leaf in ("scale", "bias")]
                paths += [f"batch_stats/{writer.norm}/{leaf}" for leaf in ("mean", "var")]
            for path in paths:
                put(path, kept, size, -1)
    return unflatten(leaves)
