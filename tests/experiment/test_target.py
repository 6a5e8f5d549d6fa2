"""Targets: what networks cost without their pruned channels, against networks that are narrower from the start."""

import jax
import numpy as np
import pytest

from tests.deploy import families
from tests.models import foreign
from vpns_jax import models, sparsity, trees
from vpns_jax.experiment import target
from vpns_jax.models import initializing, registry
from vpns_jax.models.widths import freeze


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    families.register(monkeypatch)


def narrow(model, keep):
    """A mask that keeps a share of the channels of everything, but at least one head."""
    params = initializing.shapes(model, image_size=32)["params"]
    pattern = sparsity.ChannelPattern(channels=models.channels(model))
    free = {kernel for each in models.channels(model) if not each.fixed for kernel in each.kernels}
    kernels = trees.unflatten({path: leaf for path, leaf in trees.flatten(params).items() if path in free})
    scored = jax.eval_shape(pattern.scored, kernels)
    kept = jax.tree.map(lambda x: np.arange(x.size) < round(keep * x.size), scored)
    return spread(pattern, kept, params)


def spread(pattern, kept, params):
    """The mask, in one program."""
    return jax.device_get(jax.jit(lambda kept: pattern.mask(kept, params))(kept))


def dense(name, **options):
    model = models.create(name, num_classes=10, **options)
    counted = {kind: sparsity.cost(target.terms(kind, model, image_size=32), {}) for kind in target.COSTS}
    return model, {target.key(kind): size for kind, size in counted.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small_basic", "small_vgg_bn"])
def test_half_of_all_channels_cost_what_a_network_of_half_the_width_does(name):
    model, whole = dense(name, width=1 / 8)
    _, half = dense(name, width=1 / 16)
    found = target.shrunk(model, narrow(model, 0.5), image_size=32)
    assert found == {key: {"dense": whole[key], "shrunk": half[key]} for key in whole}


@pytest.mark.slow
def test_a_vit_by_hand(monkeypatch):
    """Of 3 heads two are kept, of 768 hidden units half; the 192 channels of the residual stream all are."""
    monkeypatch.setitem(registry.ENTRIES, "vit_ti32", families.cut("vit_ti32", depth=2))
    model, whole = dense("vit_ti32")
    found = target.shrunk(model, narrow(model, 2 / 3), image_size=32)
    # An image of 32 px is one patch, and a class token: 2 positions.
    per_token = 2 * (4 * 192 * 192 + 8 * 192 * 192)
    assert found["multiply_adds"]["dense"] == whole["multiply_adds"] == 32 * 32 * 3 * 192 + 2 * per_token + 192 * 10
    assert found["multiply_adds"]["shrunk"] == 32 * 32 * 3 * 192 + 2 * per_token * 2 // 3 + 192 * 10


def test_a_network_with_concatenated_channels_costs_what_the_narrower_one_does():
    """Kept are one of three channels, two of four, three of five, one of two, and three of six hidden units."""
    widths = {"a": 1, "b": 2, "c": 3, "d": 1, "fc": 3}
    wide, narrower = foreign.Concatenated(), foreign.Concatenated(widths=freeze(widths))
    params = initializing.shapes(wide, image_size=8)["params"]
    kernels = trees.flatten(models.prunable(params, exclude=["head"]))
    kept = {path: np.arange(leaf.shape[-1]) < widths[path.split("/")[0]] for path, leaf in kernels.items()}
    pattern = sparsity.ChannelPattern(channels=models.channels(wide, image_size=8))
    mask = spread(pattern, trees.unflatten(kept), params)
    costs = {
        name: {target.key(kind): sparsity.cost(target.terms(kind, model, image_size=8), {}) for kind in target.COSTS}
        for name, model in (("dense", wide), ("shrunk", narrower))
    }
    found = target.shrunk(wide, mask, image_size=8)
    assert found == {key: {name: costs[name][key] for name in costs} for key in costs["dense"]}


def test_published_sizes():
    model = models.create("resnet18")
    assert sparsity.cost(target.terms("macs", model, image_size=224), {}) == 1_814_073_344
    assert sparsity.cost(target.terms("params", model, image_size=224), {}) == 11_689_512


@pytest.mark.slow
@pytest.mark.parametrize("kind", target.COSTS)
def test_a_resnet18_comes_within_two_percent_of_its_target(kind):
    model = models.create("resnet18")
    parts = target.terms(kind, model, image_size=224)
    pattern = sparsity.BudgetPattern(channels=models.channels(model), terms=parts, target=kind)
    names = {term.writes for term in parts} - {""}
    sizes = dict(zip(sorted(names), (0,) * len(names), strict=True))
    params = initializing.shapes(model, image_size=224)["params"]
    sizes = {name: trees.flatten(params)[name].shape[-1] for name in sizes}
    rng = np.random.default_rng(0)
    scores = trees.unflatten({name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()})
    for share in (0.5, 0.25):
        kept = trees.flatten(pattern.select(scores, share))
        counts = {name: (int(keep.sum()), keep.size) for name, keep in kept.items()}
        left = sparsity.cost(parts, counts) / sparsity.cost(parts, {})
        assert 0.98 * share <= left <= share
        # Which is not the share of channels.
        assert abs(sum(n for n, _ in counts.values()) / sum(n for _, n in counts.values()) - share) > 0.02


@pytest.mark.parametrize(
    ("text", "expected"), [("", None), ("macs:0.5", ("macs", 0.5)), ("params:2e-1", ("params", 0.2))]
)
def test_targets_are_read(text, expected):
    found = target.parse(text)
    assert found is None if expected is None else (found.kind, found.share) == expected


@pytest.mark.slow
def test_what_is_counted_is_what_shrinking_leaves():
    """A third of all channels, the first ones of each tensor, cut out of random weights."""
    model, _ = dense("small_basic", width=1 / 8)
    shapes = initializing.shapes(model, image_size=32)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) ** 2, shapes)
    mask = narrow(model, 2 / 3)
    small = models.shrink(model, {**variables, "params": sparsity.apply(variables["params"], mask)}).model
    for kind in target.COSTS:
        left = target.shrunk(model, mask, image_size=32)[target.key(kind)]["shrunk"]
        assert left == sparsity.cost(target.terms(kind, small, image_size=32), {})
