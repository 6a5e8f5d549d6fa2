"""Coupled channels: expected couplings by hand, and the outputs of pruned networks."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from vpns_jax import models, sparsity
from vpns_jax.errors import UserError
from vpns_jax.models import initializing
from vpns_jax.models.resnet import ResNet
from vpns_jax.models.vit import HEAD_DIM
from vpns_jax.models.wiring import gelu, identity, relu
from vpns_jax.trees import flatten, unflatten


def shapes(name, **options):
    model = models.create(name, **options)
    return model, initializing.shapes(model, image_size=224)["params"]


def shared(model):
    """Kernels whose outputs are added."""
    found = [tuple(writer.kernel for writer in each.writers) for each in models.channels(model) if not each.fixed]
    return [kernels for kernels in found if len(kernels) > 1]


def kernels(names):
    return tuple(f"{name}/kernel" for name in names.split())


def test_resnet18_by_hand():
    assert shared(models.create("resnet18")) == [
        kernels("conv1 layer1_0/conv2 layer1_1/conv2"),
        kernels("layer2_0/downsample_conv layer2_0/conv2 layer2_1/conv2"),
        kernels("layer3_0/downsample_conv layer3_0/conv2 layer3_1/conv2"),
        kernels("layer4_0/downsample_conv layer4_0/conv2 layer4_1/conv2"),
    ]


def test_resnet50_by_hand():
    """The stem feeds a convolution in the shortcut, so its channels are not coupled."""
    groups = shared(models.create("resnet50"))
    assert groups[0] == kernels("layer1_0/downsample_conv layer1_0/conv3 layer1_1/conv3 layer1_2/conv3")
    assert [len(paths) for paths in groups] == [4, 5, 7, 4]
    assert not any("conv1/kernel" in paths for paths in groups)


def test_in_a_residual_sum_a_reader_sees_the_writers_before_it():
    stage, *_ = [each for each in models.channels(models.create("resnet18")) if each.name.startswith("layer2_0/down")]
    assert [(reader.kernel, reader.padded, reader.sums) for reader in stage.readers] == [
        ("layer2_1/conv1/kernel", True, 2),
        ("layer3_0/conv1/kernel", True, 3),
        ("layer3_0/downsample_conv/kernel", False, 3),
    ]


def test_vgg_by_hand():
    first, *_, last, head = models.channels(models.create("vgg16_bn"))
    assert first == models.Channels(
        (models.Writer("conv1_1/kernel", "conv1_1/bias", "bn1_1"),),
        (models.Reader("conv1_2/kernel", padded=True),),
        activation=relu,
    )
    assert last == models.Channels(
        (models.Writer("fc2/kernel", "fc2/bias"),), (models.Reader("head/kernel"),), activation=relu
    )
    assert head.fixed == "its output channels are the classes"
    plain = {each.name: each for each in models.channels(models.create("vgg16"))}
    assert plain["conv5_3/kernel"].writers == (models.Writer("conv5_3/kernel", "conv5_3/bias"),)
    assert plain["conv5_3/kernel"].readers == (models.Reader("fc1/kernel", positions=49),)


def test_vit_has_heads_and_hidden_units_and_a_residual_stream_that_stays():
    *blocks, stream, head = models.channels(models.create("vit_ti32"))
    heads, hidden = blocks[::2], blocks[1::2]
    assert [each.width for each in heads] == [HEAD_DIM] * 12
    assert heads[3].kernels == kernels("block_3/attention/value block_3/attention/query block_3/attention/key")
    assert heads[3].readers == (models.Reader("block_3/attention/out/kernel"),)
    assert hidden[3].kernels == kernels("block_3/mlp/fc1")
    assert (heads[3].activation, hidden[3].activation) == (identity, gelu)
    assert len(stream.kernels) == 25
    assert stream.fixed
    assert head.fixed


def test_a_convnext_has_hidden_units_and_a_stream_in_each_stage():
    model = models.create("convnext_tiny")
    *hidden, head = models.channels(model)
    hidden, streams = hidden[:18], hidden[18:]
    assert hidden[3] == models.Channels(
        (models.Writer("stage2_0/fc1/kernel", "stage2_0/fc1/bias"),),
        (models.Reader("stage2_0/fc2/kernel"),),
        activation=gelu,
    )
    assert [len(each.kernels) for each in streams] == [7, 7, 19, 7]
    blocks = "stage2_0/depthwise stage2_0/fc2 stage2_1/depthwise stage2_1/fc2 stage2_2/depthwise stage2_2/fc2"
    assert streams[1].kernels == kernels(f"downsample2_conv {blocks}")
    assert all(each.fixed for each in (*streams, head))
    assert models.create("convnext_tiny", widths={"stage3_8/fc1": 5}).widths == (("stage3_8/fc1", 5),)


def test_a_distilled_network_has_two_heads_with_the_same_classes():
    *_, head = models.channels(models.create("deit_ti16_distilled"))
    assert head.kernels == kernels("head head/dist")


def test_an_unknown_network_is_refused():
    with pytest.raises(
        UserError, match=r"no channel of Dense can be pruned as a whole: of kernel, its output channels are the classes"
    ):
        models.channels(nn.Dense(3))


def quickly(function):
    """Jitted without optimizations, which would take longer than the small network runs."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function, compiler_options=options)


def random_like(tree, seed=0):
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(structure, [rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


def statistics(shapes):
    """The batch statistics of a network that has seen no image."""
    leaves = flatten({"batch_stats": shapes.get("batch_stats", {})})
    return unflatten({path: np.full(leaf.shape, path.endswith("/var"), leaf.dtype) for path, leaf in leaves.items()})


@pytest.mark.slow
@pytest.mark.usefixtures("searched_by_sorting")
@pytest.mark.parametrize("allocation", ["global", "uniform", "erk"])
def test_coupled_channels_share_masks_exactly(allocation):
    model = ResNet(depths=(1, 1), block="bottleneck", width=1 / 8)
    weights = random_like(initializing.shapes(model, image_size=32)["params"])
    mask = flatten(sparsity.counted(channel_mask(model, weights, 0.4, allocation)))
    by_channel = {path: np.asarray(leaf).reshape(-1, leaf.shape[-1]) for path, leaf in mask.items()}
    assert all((keep == keep[0]).all() for keep in by_channel.values())
    for paths in shared(model):
        assert len({by_channel[path][0].tobytes() for path in paths}) == 1
    # Each coupled set counts once.
    free = set(mask) - {path for paths in shared(model) for path in paths[1:]}
    sizes = {path: mask[path].shape[-1] for path in free}
    kept = {path: int(by_channel[path][0].sum()) for path in free}
    assert any(kept[path] < sizes[path] for path in free)
    if allocation == "global":
        assert sum(kept.values()) == sum(sizes.values()) - int((1 - 0.4) * sum(sizes.values()))
    if allocation == "uniform":
        assert kept == {path: size - int((1 - 0.4) * size) for path, size in sizes.items()}


def channel_mask(model, weights, density, allocation="global"):
    """By magnitude, of all but the head."""
    pattern = sparsity.ChannelPattern(allocation=allocation, channels=models.channels(model))
    found = models.prunable(weights, exclude=["head"])
    counts = sparsity.pruned_groups(pattern, found, density)
    return jax.device_get(
        jax.jit(lambda weights, found: pattern.mask(pattern.select(pattern.magnitude(found), counts), weights))(
            weights, found
        )
    )


@pytest.mark.slow
@pytest.mark.usefixtures("searched_by_sorting")
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_a_pruned_channel_is_exactly_zero_after_every_residual_sum(block):
    """Whatever the input and the normalisations' biases; a mask on kernels alone leaves these behind."""
    model = ResNet(depths=(2, 1), block=block, num_classes=3, width=1 / 16, stem="small")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    shapes = initializing.shapes(model, image_size=8)
    weights = random_like(shapes["params"])
    mask = channel_mask(model, weights, 0.5, "uniform")
    stats = statistics(shapes)
    run = quickly(lambda params: model.apply({**stats, "params": params}, images, capture_intermediates=True)[1])
    seen, left = (run(sparsity.apply(weights, some))["intermediates"] for some in (mask, sparsity.counted(mask)))
    last = "conv2" if block == "basic" else "conv3"
    for name in ("layer1_0", "layer1_1", "layer2_0"):
        keep = np.asarray(mask[name][last]["kernel"][0, 0, 0])
        assert 0 < keep.sum() < keep.size
        masked, behind = (np.asarray(each[name]["__call__"][0]) for each in (seen, left))
        assert masked[..., keep].any()
        assert not masked[..., ~keep].any()
        assert behind[..., ~keep].any()


def test_vit_is_pruned_by_heads_and_hidden_units_once_the_rest_is_left_out():
    model, params = shapes("vit_ti32")
    pattern = sparsity.ChannelPattern(channels=models.channels(model))
    with pytest.raises(UserError, match=r"residual stream.*dense: block_\*/attention/out/kernel, block_\*/mlp/fc2/ker"):
        sparsity.validate(pattern, models.prunable(params), 0.5)
    rest = models.prunable(params, exclude=["embedding", "head", "*/attention/out", "*/mlp/fc2"])
    # 12 x 3 heads and 12 x 768 hidden units.
    assert sparsity.pruned_groups(pattern, rest, 0.5) == (12 * 3 + 12 * 768) // 2
    with pytest.raises(UserError, match=r"shares its output channels with block_0/attention/key/kernel"):
        sparsity.validate(pattern, models.prunable(rest, exclude=["block_0/attention/key"]), 0.5)
