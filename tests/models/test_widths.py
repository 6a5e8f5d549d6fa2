"""Layers of any width, zero included: names stay the same, and missing channels do not change the output."""

import numpy as np
import pytest

from tests.models.test_coupling import quickly
from vpns_jax.models import initializing
from vpns_jax.models.convnext import ConvNeXt
from vpns_jax.models.resnet import ResNet
from vpns_jax.models.vgg import VGG
from vpns_jax.models.vit import ViT
from vpns_jax.models.widths import freeze
from vpns_jax.trees import flatten, unflatten

SHRUNK = {
    "basic": (ResNet((2, 1), "basic", 5, 1 / 8), {"conv1": 3, "layer1_0/conv1": 0, "layer2_0/conv1": 5}),
    "bottleneck": (
        ResNet((1, 1), "bottleneck", 5, 1 / 8),
        {"conv1": 3, "layer1_0/conv1": 2, "layer1_0/conv2": 0, "layer2_0/downsample_conv": 1},
    ),
    "vgg": (VGG(((2, 256), (1, 256)), True, 5, 1 / 32, 0.0), {"conv1_2": 1, "fc1": 3}),
    "convnext": (ConvNeXt((1, 2), 5, 1 / 24), {"stage1_0/fc1": 3, "stage2_1/fc1": 0}),
    "vit": (ViT(8, 128, 2, 5), {"block_0/attention/value": 0, "block_0/mlp/fc1": 0, "block_1/attention/value": 64}),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", SHRUNK)
def test_widths_are_those_of_the_layers_named_and_no_name_changes(family):
    model, widths = SHRUNK[family]
    shrunk, images = model.clone(widths=freeze(widths)), np.ones((2, 16, 16, 3), np.float32)
    assert hash(shrunk) != hash(model)
    standard = initializing.shapes(model, image_size=16)
    leaves = flatten(initializing.shapes(shrunk, image_size=16))
    assert list(leaves) == list(flatten(standard))
    for layer, outputs in widths.items():
        assert leaves[f"params/{layer}/kernel"].shape[-1] == outputs
    rng = np.random.default_rng(0)
    drawn = {path: np.asarray(rng.uniform(0.1, 1, leaf.shape), leaf.dtype) for path, leaf in leaves.items()}
    logits = np.asarray(quickly(shrunk.apply)(unflatten(drawn), images))
    assert logits.shape == (2, 5)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("family", SHRUNK)
def test_the_standard_widths_can_be_named_too(family):
    model, widths = SHRUNK[family]
    standard = initializing.shapes(model, image_size=16)
    named = {layer: flatten(standard)[f"params/{layer}/kernel"].shape[-1] for layer in widths}
    assert initializing.shapes(model.clone(widths=freeze(named)), image_size=16) == standard
