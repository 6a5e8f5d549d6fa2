"""Finished networks, shrunk: the same answers from a smaller file."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.deploy import families
from tests.training.tiny import same
from vpns_jax import deploy, models, sparsity
from vpns_jax.training.network import predict
from vpns_jax.trees import flatten

pytestmark = pytest.mark.usefixtures("small_families")


def logits(classifier, *, prompted):
    source = predict(classifier.network, classifier.subnetwork, families.images(classifier), prompted=prompted)
    return np.asarray(source)[:, np.asarray(classifier.subnetwork.mapping)]


@pytest.mark.slow
def test_what_is_left_is_described_and_goes_through_a_file(tmp_path):
    before = families.classifier("small_stem", prompt="none", origin={"seed": 7})
    after = deploy.shrink(before)
    assert after.description.options == {**before.description.options, "widths": after.description.options["widths"]}
    assert after.description.origin == {"seed": 7}
    assert after.subnetwork.mapping.tolist() == [0, 1, 2]
    assert after.subnetwork.weights["head"]["kernel"].shape[-1] == 3
    # The mask is that of the weights that are left.
    kept = [np.count_nonzero(leaf) for leaf in jax.tree.leaves(after.subnetwork.mask)]
    assert sum(kept) < sum(np.count_nonzero(leaf) for leaf in jax.tree.leaves(before.subnetwork.mask))
    deploy.save(tmp_path / "small", after)
    read = deploy.load(tmp_path / "small")
    assert read.description == after.description
    assert same(read.subnetwork, after.subnetwork)
    assert read.network == after.network


@pytest.mark.slow
def test_a_network_that_lost_channels():
    """The mask of channels has the scale and bias of their batch normalization, and biases of layers without one."""
    dense = families.classifier("small_vgg_bn", density=1.0)
    model, weights = dense.network.model, dense.subnetwork.weights
    pattern = sparsity.ChannelPattern(channels=models.channels(model))
    kernels = models.prunable(weights, exclude=["head"])
    amount = pattern.amount(kernels, 0.5)
    # In one program.
    mask = jax.jit(lambda kernels: pattern.mask(pattern.select(pattern.magnitude(kernels), amount), weights))(kernels)
    assert {"bn1_1/scale", "bn1_1/bias", "fc1/bias"} <= flatten(mask).keys()
    before = dataclasses.replace(dense, subnetwork=dataclasses.replace(dense.subnetwork, mask=mask))
    after = deploy.shrink(before)
    assert deploy.size_of(after).channels < deploy.size_of(before).channels
    assert flatten(after.subnetwork.mask).keys() == flatten(mask).keys()
    expected = logits(before, prompted=True)
    np.testing.assert_allclose(logits(after, prompted=True), expected, rtol=0, atol=1e-5 * expected.std())


def test_sizes_by_hand():
    """A VGG's: conv1_1, conv2_1, fc1, fc2 and the head, with batch normalization behind the convolutions."""
    size = deploy.size_of(families.classifier("small_vgg_bn"))
    assert size.channels == 8 + 16 + 256 + 256
    kernels = (27 * 8, 72 * 16, 49 * 16 * 256, 256 * 256, 256 * 7)
    assert size.parameters == sum(kernels) + 3 * (8 + 16) + 256 + 256 + 7
    assert size.multiply_adds == 16 * 16 * kernels[0] + 8 * 8 * kernels[1] + sum(kernels[2:])
    # Statistics have a mean and a variance a channel, and a count a layer.
    assert size.bytes == 4 * (size.parameters + 2 * (8 + 16) + 2)


@pytest.mark.slow
def test_rounded_widths():
    before = families.classifier("small_basic")
    widths, rounded = (
        [leaf.shape[-1] for path, leaf in flatten(each.subnetwork.weights).items() if "conv" in path]
        for each in (before, deploy.shrink(before, round_to=4))
    )
    assert all(width % 4 == 0 for width in rounded)
    assert any(after < width for after, width in zip(rounded, widths, strict=True))
