"""Widths of shrunk networks: what they round up to, what they may be, and networks that are created with them."""

import jax
import numpy as np
import pytest

from tests.models.dead import NETWORKS, SIDE, check_equal, drawn, images
from vpns_jax import models
from vpns_jax.errors import UserError
from vpns_jax.models.vit import HEAD_DIM
from vpns_jax.trees import flatten, unflatten


def test_widths_round_up_to_what_is_asked_by_keeping_the_best_of_the_dead():
    network, rng = "vgg_bn", np.random.default_rng(4)
    leaves = drawn(network, rng)
    # Nobody reads units 3, 4 and 5 of fc1, whose kernels grow in this order.
    leaves["params/fc2/kernel"][3:6] = 0
    for unit in (3, 4, 5):
        leaves["params/fc1/kernel"][:, unit] *= unit
    variables = unflatten(leaves)
    assert dict(models.shrink(NETWORKS[network], variables).model.widths) == {"fc1": 125}
    for step, gone in ((2, {3, 4}), (4, set()), (5, {3, 4, 5}), (126, {3, 4})):
        shrunk = models.shrink(NETWORKS[network], variables, round_to=step)
        assert set(range(128)).difference(shrunk.kept["fc1"].tolist()) == gone
    check_equal(network, variables, models.shrink(NETWORKS[network], variables, round_to=2))


@pytest.mark.parametrize(("round_to", "width"), [(8, HEAD_DIM), (HEAD_DIM, HEAD_DIM), (3 * HEAD_DIM, 2 * HEAD_DIM)])
def test_a_head_is_many_channels_at_once(round_to, width):
    leaves = drawn("vit", np.random.default_rng(4))
    leaves["params/block_0/attention/out/kernel"][:HEAD_DIM] = 0
    shrunk = models.shrink(NETWORKS["vit"], unflatten(leaves), round_to=round_to)
    assert shrunk.kept["block_0/attention/value"].size == width


@pytest.mark.slow
def test_a_shrunk_network_is_created_by_name_and_goes_through_a_file(tmp_path):
    model = models.create("resnet18", width=1 / 16, num_classes=5, stem="small")
    shape = jax.eval_shape(model.init, jax.random.key(0), images())
    rng = np.random.default_rng(9)
    leaves = {path: np.abs(rng.normal(size=x.shape)).astype(x.dtype) for path, x in flatten(shape).items()}
    leaves["params/layer3_1/conv2/kernel"][:, :, :9] = 0
    leaves["params/layer4_1/conv1/kernel"][...] = leaves["params/layer4_1/bn1/bias"][...] = 0
    leaves["batch_stats/layer4_1/bn1/mean"][...] = 0
    shrunk = models.shrink(model, unflatten(leaves))
    widths = {"layer3_1/conv1": 7, "layer4_1/conv1": 0}
    assert models.create("resnet18", width=1 / 16, num_classes=5, stem="small", widths=widths) == shrunk.model
    path = tmp_path / "small.safetensors"
    models.save_safetensors(path, models.export("resnet18", shrunk.variables))
    found = models.load_pretrained(
        "resnet18", path, num_classes=None, width=1 / 16, stem="small", widths=widths, image_size=SIDE
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, found, shrunk.variables))


@pytest.mark.parametrize(
    ("widths", "reason"),
    [
        ({"head": 3}, "widths names 'head'; layers with widths are conv1, layer2_0/downsample_conv"),
        ({"layer1_0/conv2": 4}, "widths names 'layer1_0/conv2'"),
        ({"conv1": 0}, r"widths has 0 outputs of conv1; it takes 1 \.\.\. 65536"),
        ({"layer1_0/conv1": -1}, r"widths has -1 outputs of layer1_0/conv1; it takes 0 \.\.\. 65536"),
        ({"conv1": 2.5}, "widths must be a mapping from layers"),
        ([("conv1", 3)], "widths must be a mapping from layers"),
    ],
)
def test_widths_that_a_network_cannot_have(widths, reason):
    with pytest.raises(UserError, match=reason):
        models.create("resnet18", widths=widths)


def test_heads_have_whole_widths():
    with pytest.raises(UserError, match=r"60 outputs of block_0/attention/value; it takes 0 .* a multiple of 64"):
        models.create("vit_ti16", widths={"block_0/attention/value": 60})
