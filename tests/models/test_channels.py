"""The table of channels: it lists every kernel, and a zero channel can be removed from all the layers it lists."""

import numpy as np
import pytest

from tests.models.test_coupling import quickly, random_like, shapes, statistics
from vpns_jax import models
from vpns_jax.models import initializing
from vpns_jax.models.convnext import ConvNeXt
from vpns_jax.models.resnet import ResNet
from vpns_jax.models.vgg import VGG
from vpns_jax.models.vit import HEAD_DIM, ViT
from vpns_jax.trees import flatten, unflatten

NETWORKS = {
    "basic": ResNet(depths=(2, 1), block="basic", num_classes=3, width=1 / 16, stem="small"),
    "bottleneck": ResNet(depths=(2, 1), block="bottleneck", num_classes=3, width=1 / 32, stem="imagenet"),
    "vgg": VGG(stages=((2, 4), (1, 6)), batch_norm=False, num_classes=3, width=1.0 / 256, dropout=0.0),
    "vgg_bn": VGG(stages=((2, 1024), (1, 1536)), batch_norm=True, num_classes=3, width=1 / 256, dropout=0.0),
    "vit": ViT(patch=8, features=2 * HEAD_DIM, depth=1, num_classes=3),
    "convnext": ConvNeXt(depths=(1, 1), num_classes=3, width=1 / 24),
}


def structure(name):
    """What a network's channels depend on; widths and patch sizes do not matter."""
    entry = models.registry.ENTRIES[name]
    return entry.module, str(
        {key: value for key, value in entry.architecture.items() if key not in ("features", "patch")}
    )


# The first network of each structure.
STRUCTURES = {structure(name): name for name in reversed(models.names())}


@pytest.mark.slow
@pytest.mark.parametrize("name", STRUCTURES.values())
def test_every_kernel_is_written_once_and_read_once(name):
    model, params = shapes(name)
    there, all_channels = flatten(params), models.channels(model)
    written = [kernel for each in all_channels for kernel in each.kernels]
    assert sorted(written) == sorted(flatten(models.prunable(params)))
    read = [reader.kernel for each in all_channels for reader in each.readers]
    assert len(read) == len(set(read))
    assert set(read) <= set(written)
    if isinstance(model, ResNet | VGG):
        # No layer writes the images' channels.
        assert len(set(written) - set(read)) == 1
    for each in all_channels:
        (width,) = {there[kernel].shape[-1] for kernel in each.kernels} if not each.fixed else {each.width}
        assert width % each.width == 0
        for reader in each.readers:
            assert there[reader.kernel].shape[-2] == reader.positions * width
        for writer in (*each.writers, *each.companions):
            vectors = [writer.bias] if writer.bias else []
            vectors += [f"{writer.norm}/{leaf}" for leaf in ("scale", "bias")] if writer.norm else []
            assert all(there[path].shape == there[writer.kernel].shape[-1:] for path in vectors)


def ends(writer):
    """The parameters that produce a layer's final output."""
    if writer.norm:
        return [f"{writer.norm}/scale", f"{writer.norm}/bias"]
    return [path for path in (writer.kernel, writer.bias) if path]


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_cut_does_not_matter(network):
    """The other weights of a zero channel do not change the logits."""
    model, rng = NETWORKS[network], np.random.default_rng(0)
    images = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
    shapes = initializing.shapes(model, image_size=16)
    stats, params = statistics(shapes), flatten(random_like(shapes["params"]))
    other = {path: leaf.copy() for path, leaf in params.items()}
    for each in models.channels(model):
        if each.fixed:
            continue
        units = params[each.name].shape[-1] // each.width
        dead = np.repeat(np.arange(units) % 2 == 0, each.width)
        for tree in (params, other):
            for path in (path for writer in each.writers for path in ends(writer)):
                tree[path][..., dead] = 0
        free = [writer.kernel for writer in (*each.companions, *each.writers) if writer.norm]
        free += [path for writer in each.companions for path in (writer.kernel, writer.bias)]
        for path in free:
            other[path][..., dead] += rng.normal(size=other[path][..., dead].shape)
        for reader in each.readers:
            rows = np.tile(dead, reader.positions)
            other[reader.kernel][..., rows, :] += rng.normal(size=other[reader.kernel][..., rows, :].shape)
    run = quickly(lambda params: model.apply({**stats, "params": params}, images))
    first, second = (np.asarray(run(unflatten(tree))) for tree in (params, other))
    assert first.std() > 0
    np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-6 * first.std())
