"""Which channels are one: by hand, and by what the networks compute when they are pruned."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpns_jax import models, sparsity
from vpns_jax.errors import UserError
from vpns_jax.models.resnet import ResNet
from vpns_jax.models.vit import HEAD_DIM, MLP, Attention
from vpns_jax.trees import flatten

CHANNEL = sparsity.parse_granularity("channel")


def shapes(name, **options):
    model = models.create(name, **options)
    size = 64 if name.startswith("vit") else 32
    return model, jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))["params"]


def shared(model):
    return [entry.paths for entry in models.coupled(model) if not entry.fixed]


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
    """The stem feeds a shortcut that is a convolution: it is free."""
    groups = shared(models.create("resnet50"))
    assert groups[0] == kernels("layer1_0/downsample_conv layer1_0/conv3 layer1_1/conv3 layer1_2/conv3")
    assert [len(paths) for paths in groups] == [4, 5, 7, 4]
    assert not any("conv1/kernel" in paths for paths in groups)


def test_vgg_has_none_but_the_classes():
    assert models.coupled(models.create("vgg16")) == (
        models.Coupled(("head/kernel",), fixed="its output channels are the classes"),
    )


def test_vit_has_heads_and_a_residual_stream_that_stays():
    *heads, stream, head = models.coupled(models.create("vit_ti32"))
    assert [entry.width for entry in heads] == [HEAD_DIM] * 12
    assert heads[3].paths == kernels("block_3/attention/query block_3/attention/key block_3/attention/value")
    assert len(stream.paths) == 25
    assert stream.fixed
    assert head.fixed


@pytest.mark.parametrize("name", models.names())
def test_every_coupling_names_kernels_that_are_there_with_equal_channels(name):
    model, params = shapes(name)
    there = flatten(models.prunable(params))
    named = [path for entry in models.coupled(model) for path in entry.paths]
    assert len(named) == len(set(named))
    for entry in models.coupled(model):
        channels = {there[path].shape[-1] for path in entry.paths}
        if not entry.fixed:
            assert len(channels) == 1
            assert channels.pop() % entry.width == 0


def test_an_unknown_network_is_refused():
    with pytest.raises(UserError, match=r"channels of Dense are coupled is not known; known: ResNet, VGG, ViT"):
        models.coupled(nn.Dense(3))


def quickly(function):
    """Jitted without the optimizations that cost more than so small a network takes to run."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function, compiler_options=options)


def random_like(tree, seed=0):
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(structure, [jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves])


@pytest.mark.parametrize("allocation", ["global", "uniform", "erk"])
def test_coupled_channels_share_masks_exactly(allocation):
    model = ResNet(depths=(2, 2), block="bottleneck", width=1 / 8)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    scores = random_like(models.prunable(params, exclude=["head"]))
    pattern = sparsity.Pattern(CHANNEL, allocation, models.coupled(model))
    mask = flatten(sparsity.structured_mask(scores, 0.4, pattern))
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


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_a_pruned_channel_is_gone_after_every_residual_sum(block):
    """Normalisation starts with no bias: channels that nothing is written to are zero; uncoupled they are not."""
    model = ResNet(depths=(2, 1), block=block, num_classes=3, width=1 / 16, stem="small")
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
    variables = quickly(model.init)(jax.random.key(0), images)
    last = "conv2" if block == "basic" else "conv3"
    run = quickly(lambda variables: model.apply(variables, images, capture_intermediates=True)[1]["intermediates"])

    def written_to(coupled):
        """By block: the channels kept in its last layer, and those that its output has."""
        scores = models.prunable(variables["params"], exclude=["head"])
        mask = sparsity.structured_mask(scores, 0.5, sparsity.Pattern(CHANNEL, "uniform", coupled))
        seen = run(variables | {"params": sparsity.apply(variables["params"], mask)})
        for name in ("layer1_0", "layer1_1", "layer2_0"):
            yield np.asarray(mask[name][last]["kernel"][0, 0, 0]), np.abs(seen[name]["__call__"][0]).max((0, 1, 2)) > 0

    for keep, seen in written_to(models.coupled(model)):
        assert 0 < keep.sum() < keep.size
        assert seen[keep].any()
        assert not seen[~keep].any()
    assert any(seen[~keep].any() for keep, seen in written_to(()))


def test_a_pruned_head_adds_nothing():
    """Attention with two of three heads is attention whose output forgets the third; so for the MLP's hidden units."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 3 * HEAD_DIM)), jnp.float32)
    params = quickly(Attention(jnp.float32).init)(jax.random.key(0), x)["params"]
    scores = {name: {"kernel": params[name]["kernel"]} for name in ("query", "key", "value")}
    heads = models.Coupled(("query/kernel", "key/kernel", "value/kernel"), width=HEAD_DIM)
    mask = sparsity.structured_mask(scores, 0.5, sparsity.Pattern(CHANNEL, coupled=(heads,)))
    keep = mask["value"]["kernel"][0]
    assert keep.reshape(3, HEAD_DIM).sum(1).tolist().count(0) == 1
    forgetful = {**params, "out": {**params["out"], "kernel": params["out"]["kernel"] * keep[:, None]}}
    apply = quickly(lambda params: Attention(jnp.float32).apply({"params": params}, x))
    np.testing.assert_allclose(apply(sparsity.apply(params, mask)), apply(forgetful), atol=1e-5)

    mlp = MLP(0.0, jnp.float32)
    params = quickly(lambda key: mlp.init(key, x, train=False))(jax.random.key(0))["params"]
    mask = sparsity.structured_mask({"fc1": {"kernel": params["fc1"]["kernel"]}}, 0.5, sparsity.Pattern(CHANNEL))
    keep = mask["fc1"]["kernel"][0]
    forgetful = {**params, "fc2": {**params["fc2"], "kernel": params["fc2"]["kernel"] * keep[:, None]}}
    run = quickly(lambda params: mlp.apply({"params": params}, x, train=False))
    np.testing.assert_allclose(run(sparsity.apply(params, mask)), run(forgetful), atol=1e-5)


def test_vit_is_pruned_by_heads_and_hidden_units_once_the_rest_is_left_out():
    model, params = shapes("vit_ti32")
    pattern = sparsity.Pattern(CHANNEL, coupled=models.coupled(model))
    with pytest.raises(UserError, match=r"residual stream.*dense: block_\*/attention/out/kernel, block_\*/mlp/fc2/ker"):
        sparsity.validate(pattern, models.prunable(params), 0.5)
    rest = models.prunable(params, exclude=["embedding", "head", "*/attention/out", "*/mlp/fc2"])
    # 12 x 3 heads and 12 x 768 hidden units.
    assert sparsity.pruned_groups(pattern, rest, 0.5) == (12 * 3 + 12 * 768) // 2
    with pytest.raises(UserError, match=r"shares its output channels with block_0/attention/key/kernel"):
        sparsity.validate(pattern, models.prunable(rest, exclude=["block_0/attention/key"]), 0.5)
