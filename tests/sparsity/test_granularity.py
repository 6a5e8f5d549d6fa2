"""Masks of whole groups: expected masks by hand, exact numbers of groups, and one compilation for all densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training import tiny
from vpns_jax import models, sparsity
from vpns_jax.errors import UserError
from vpns_jax.sparsity import Pattern, allocation

# A convolution, a shortcut and a dense layer.
SHAPES = {"conv": {"kernel": (2, 2, 4, 3)}, "down": {"kernel": (1, 1, 4, 3)}, "fc": {"kernel": (4, 6)}}
KERNELS = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), SHAPES, is_leaf=lambda x: type(x) is tuple
)
ELEMENTS = 2 * 2 * 4 * 3 + 4 * 3 + 4 * 6
CONVOLUTIONS = {"conv", "down"}
# For each granularity, the kernels that it can prune and the number of groups in each.
SERVED = {
    "weight": {"conv": 48, "down": 12, "fc": 24},
    "kernel": {"conv": 12, "down": 12},
    "channel": {"conv": 3, "down": 3, "fc": 6},
    "input_channel": {"conv": 4, "down": 4, "fc": 4},
    "block:2x3": {"fc": 4},
}
# Few values, so that ties are common.
VALUES = st.lists(st.sampled_from([0.0, -0.5, 0.5, 1.0, -2.0]), min_size=ELEMENTS, max_size=ELEMENTS)


def pattern(text, allocation="global"):
    return Pattern(sparsity.parse_granularity(text), allocation)


def tree(values, names):
    """The named kernels, filled from a list of numbers."""
    flat, start, kernels = np.asarray(values, np.float32), 0, {}
    for name in SHAPES:
        size = int(np.prod(SHAPES[name]["kernel"]))
        if name in names:
            kernels[name] = {"kernel": jnp.asarray(flat[start : start + size].reshape(SHAPES[name]["kernel"]))}
        start += size
    return kernels


def grouped(x, text):
    """[groups, weights in a group] of a kernel, by plain NumPy."""
    x = np.asarray(x)
    if text == "weight":
        return x.reshape(-1, 1)
    if text == "kernel":
        return np.stack([x[:, :, i, o].ravel() for i in range(x.shape[2]) for o in range(x.shape[3])])
    if text == "channel":
        return np.stack([x[..., o].ravel() for o in range(x.shape[-1])])
    if text == "input_channel":
        return np.stack([x[..., i, :].ravel() for i in range(x.shape[-2])])
    a, b = (int(n) for n in text.removeprefix("block:").split("x"))
    return np.stack([x[i : i + a, j : j + b].ravel() for i in range(0, x.shape[0], a) for j in range(0, x.shape[1], b)])


def kept_groups(mask, text):
    """How many groups of each kernel are kept; fails if a group is kept in part."""
    counts = {}
    for name, branch in mask.items():
        groups = grouped(branch["kernel"], text)
        assert (groups.all(1) == groups.any(1)).all(), f"a group of {name} is kept in part"
        counts[name] = int(groups.all(1).sum())
    return counts


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_kernels_by_hand():
    """The slices have the means 0.5, 1, 2.5 and 1.5."""
    conv = jnp.array([[[[1.0, -1.0], [2.0, 0.0]], [[0.0, 1.0], [-3.0, 3.0]]]])
    mask = sparsity.structured_mask({"k": conv}, 0.5, pattern("kernel"))["k"]
    assert mask[0, 0].tolist() == mask[0, 1].tolist() == [[False, False], [True, True]]


@pytest.mark.slow
def test_output_and_input_channels_by_hand():
    dense = jnp.array([[1.0, -2.0, 0.0], [0.5, 0.0, -4.0]])
    # The means are 0.75, 1, 2 by output and 1, 1.5 by input.
    assert sparsity.structured_mask({"k": dense}, 0.5, pattern("channel"))["k"].tolist() == [[False, True, True]] * 2
    mask = sparsity.structured_mask({"k": dense}, 0.5, pattern("input_channel"))["k"]
    assert mask.tolist() == [[False] * 3, [True] * 3]


@pytest.mark.slow
def test_groups_of_different_size_compare_by_the_mean_of_their_weights():
    scores = {"large": jnp.tile(jnp.array([[1.0, 2.0]]), (9, 1)), "small": jnp.array([[1.5, 1.25], [-1.5, 1.25]])}
    mask = sparsity.structured_mask(scores, 0.5, pattern("channel"))
    assert mask["large"][0].tolist() == [False, True]
    assert mask["small"][0].tolist() == [True, False]


def test_blocks_by_hand():
    dense = jnp.array([[1.0, 1.0, 9.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 3.0, 0.5, 0.5]])
    mask = sparsity.structured_mask({"k": dense}, 0.5, pattern("block:1x2"))["k"]
    # The means are 1, 4.5, 1, 0, 1.5, 0.5; of the two blocks of mean 1 the second is kept.
    assert mask.tolist() == [[False, False, True, True], [True, True, False, False], [True, True, False, False]]


def test_two_of_four_inputs_by_hand():
    dense = jnp.array([[1.0, 5.0], [-2.0, 5.0], [3.0, 5.0], [0.5, -5.0]] * 2)
    mask = sparsity.structured_mask({"k": dense}, 0.5, pattern("2:4"))["k"]
    # Of equal weights the first are dropped, as in all masks.
    assert mask.tolist() == [[False, False], [True, False], [True, True], [False, True]] * 2


def test_n_of_m_groups_inputs_at_one_place_and_output():
    conv = jnp.zeros((2, 1, 4, 2)).at[:, :, 2, :].set(1.0).at[1, 0, 2, 1].set(0.0).at[1, 0, 0, 1].set(-1.0)
    mask = sparsity.structured_mask({"k": conv}, 0.25, pattern("1:4"))["k"]
    assert (mask == (jnp.abs(conv) == 1)).all()


# --- properties ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("text", SERVED)
@settings(max_examples=25, deadline=None)
@given(values=VALUES, density=st.floats(0.1, 1))
def test_exactly_so_many_groups_are_kept_and_none_smaller_than_a_pruned_one(text, values, density):
    scores = tree(values, SERVED[text])
    total = sum(SERVED[text].values())
    mask = sparsity.structured_mask(scores, max(density, 0.2), pattern(text))
    assert sum(kept_groups(mask, text).values()) == total - int((1 - max(density, 0.2)) * total)
    means = np.concatenate([np.abs(grouped(scores[name]["kernel"], text)).mean(1) for name in scores])
    keep = np.concatenate([grouped(mask[name]["kernel"], text).all(1) for name in scores])
    if not keep.all():
        assert means[~keep].max() <= means[keep].min() + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("text", SERVED)
@settings(max_examples=15, deadline=None)
@given(values=VALUES, density=st.floats(0.25, 1))
def test_uniform_keeps_exactly_the_density_in_each_layer(text, values, density):
    mask = sparsity.structured_mask(tree(values, SERVED[text]), density, pattern(text, "uniform"))
    assert kept_groups(mask, text) == {name: n - int((1 - density) * n) for name, n in SERVED[text].items()}


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(values=VALUES, pair=st.sampled_from([(2, 4), (1, 4), (3, 4), (1, 2)]))
def test_every_m_weights_keep_exactly_n_of_the_largest(values, pair):
    n, m = pair
    scores = tree(values, SHAPES)
    mask = sparsity.structured_mask(scores, n / m, pattern(f"{n}:{m}"))
    for name in SHAPES:
        x, keep = (np.asarray(t[name]["kernel"]) for t in (scores, mask))
        *lead, rows, columns = x.shape
        split = (*lead, rows // m, m, columns)
        x, keep = np.abs(x.reshape(split)), keep.reshape(split)
        assert (keep.sum(-2) == n).all()
        assert (np.where(keep, np.inf, x).min(-2) <= np.where(keep, x, np.inf).min(-2)).all()
        assert (np.where(keep, 0, x).max(-2) <= np.where(keep, x, np.inf).min(-2)).all()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(values=VALUES, density=st.floats(0.1, 1))
def test_the_default_pattern_is_the_global_top_k(values, density):
    scores = tree(values, SHAPES)
    assert tiny.same(sparsity.structured_mask(scores, density, Pattern()), sparsity.topk_mask(scores, density))


@pytest.mark.slow
def test_bfloat16_and_any_tree():
    scores = [jnp.array([1.0, -3.0], jnp.bfloat16), (jnp.array(2.0),)]
    assert jax.tree.map(lambda m: m.tolist(), sparsity.structured_mask(scores, 0.6, Pattern())) == [
        [False, True],
        (True,),
    ]
    half = {"k": jnp.array([[1.0, -3.0], [2.0, 0.5]], jnp.bfloat16)}
    assert sparsity.structured_mask(half, 0.5, pattern("channel"))["k"].tolist() == [[False, True]] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "allocation", "densities"),
    [
        ("weight", "global", (0.1, 0.5, 1.0)),
        ("channel", "global", (0.3, 0.5, 1.0)),
        ("channel", "uniform", (0.3, 0.5, 1.0)),
        ("kernel", "erk", (0.2, 0.5, 1.0)),
    ],
)
def test_one_compilation_serves_every_density(text, allocation, densities):
    traces = []

    @jax.jit
    def prune(scores, pruned):
        traces.append(pruned)
        return sparsity.prune_groups(scores, pruned, pattern(text, allocation))

    scores = tree(np.arange(ELEMENTS), SERVED[text])
    kept = []
    for density in densities:
        pruned = sparsity.pruned_groups(pattern(text, allocation), scores, density)
        kept.append(sum(kept_groups(prune(scores, jax.tree.map(jnp.int32, pruned)), text).values()))
    assert len(traces) == 1
    assert kept[0] < kept[1] < kept[2] == sum(SERVED[text].values())


# --- Erdos-Renyi-Kernel ----------------------------------------------------------------------------------------------

# The sizes are 18, 100 and 8; the sums of dimensions are 9, 20 and 6.
THREE = [[(3, 3, 1, 2)], [(10, 10)], [(4, 2)]]


@pytest.mark.parametrize(
    ("density", "expected"),
    [
        # e = 31.5 / 35: no layer is full.
        (0.25, [0.9 * 9 / 18, 0.9 * 20 / 100, 0.9 * 6 / 8]),
        # e = 63 / 35 = 1.8 overfills the third (1.35); then e = (63 - 8) / 29.
        (0.5, [55 / 29 * 9 / 18, 55 / 29 * 20 / 100, 1.0]),
        # 69.3 / 35 overfills the third, 61.3 / 29 = 2.11 the first (1.06); then e = (69.3 - 26) / 20.
        (0.55, [1.0, 0.433, 1.0]),
        (1.0, [1.0, 1.0, 1.0]),
    ],
)
def test_erk_by_hand(density, expected):
    shares = allocation.erk(THREE, density)
    np.testing.assert_allclose(shares, expected, rtol=1e-12)
    assert np.dot(shares, [18, 100, 8]) == pytest.approx(density * 126)


def test_erk_takes_coupled_kernels_for_one_layer():
    """Sizes 18 + 8 and 100, dimensions 9 + 6 and 20: e = 25.2 / 35."""
    np.testing.assert_allclose(allocation.erk([[(3, 3, 1, 2), (4, 2)], [(10, 10)]], 0.2), [0.72 * 15 / 26, 0.72 * 0.2])


@settings(max_examples=10, deadline=None)
@given(values=VALUES)
def test_erk_masks_keep_its_densities_exactly(values):
    """Dimensions 11, 9, 10; sizes 48, 12, 24: e = 42 / 30 overfills the second (1.05); then e = (42 - 12) / 21."""
    mask = sparsity.structured_mask(tree(values, SHAPES), 0.5, pattern("weight", "erk"))
    kept = {"conv": 48 - int((1 - 110 / 7 / 48) * 48), "down": 12, "fc": 24 - int((1 - 100 / 7 / 24) * 24)}
    assert kept_groups(mask, "weight") == kept == {"conv": 16, "down": 12, "fc": 15}


# --- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_groups_mean_score_moves_by_its_mean_mask_gradient():
    """The same update as with one mask variable for each group g: d mean|s| = sum_g dm / |g|."""
    scores, c = jnp.array([[1.0, -3.0], [2.0, 5.0]]), jnp.array([[1.0, 2.0], [-4.0, 6.0]])
    which = pattern("channel")

    def loss(s):
        return jnp.sum(c * sparsity.attach_gradient({"k": s}, sparsity.structured_mask({"k": s}, 0.5, which))["k"])

    value, gradient = jax.value_and_grad(loss)(scores)
    assert value == 2 + 6
    assert gradient.tolist() == [[1.0, -2.0], [-4.0, 6.0]]
    moved = jnp.abs(scores - 0.1 * gradient).mean(0) - jnp.abs(scores).mean(0)
    np.testing.assert_allclose(moved, -0.1 * c.mean(0), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "density", "exclude"),
    [
        ("weight", 0.5, ()),
        ("kernel", 0.5, ("head",)),
        ("channel", 0.5, ("head",)),
        ("input_channel", 0.5, ("conv1",)),
        ("2:4", 0.5, ("conv1",)),
        ("block:2x5", 0.5, ("conv1",)),
    ],
)
def test_a_step_of_learned_scores_under_every_granularity(text, density, exclude):
    """All scores get the gradient sign(s) * dL/dm; after the step, the mask keeps the same number of whole groups."""
    variables, data, which = tiny.variables(), tiny.split(), pattern(text)
    # So the ReLU of a channel without weights is on.
    variables["params"]["bn1"]["bias"] += 0.5
    images = data.images / 127.5 - 1.0
    scores = sparsity.scaled_init(models.prunable(variables["params"], exclude=exclude))
    pruned = sparsity.pruned_groups(which, scores, density)

    def loss(mask):
        logits = tiny.Tiny().apply({**variables, "params": sparsity.apply(variables["params"], mask)}, images)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), data.labels[:, None], 1))

    @jax.jit
    def step(scores):
        mask = sparsity.prune_groups(scores, pruned, which)
        gradient = jax.grad(lambda scores: loss(sparsity.attach_gradient(scores, mask)))(scores)
        by_mask = jax.grad(loss)(jax.tree.map(lambda keep: keep.astype(jnp.float32), mask))
        stepped = jax.tree.map(lambda s, g: s - 100.0 * g, scores, gradient)
        return mask, gradient, by_mask, sparsity.prune_groups(stepped, pruned, which)

    before, gradient, by_mask, after = step(scores)
    jax.tree.map(
        lambda g, s, m: np.testing.assert_allclose(g, jnp.sign(s) * m, rtol=1e-5, atol=1e-8), gradient, scores, by_mask
    )
    hidden = [jnp.abs(g)[~keep] for g, keep in zip(*map(jax.tree.leaves, (gradient, before)), strict=True)]
    assert max(float(g.max(initial=0.0)) for g in hidden) > 1e-4
    assert not tiny.same(before, after)
    if text == "2:4":
        assert all((leaf.reshape(-1, 4, leaf.shape[-1]).sum(1) == 2).all() for leaf in jax.tree.leaves(after))
    else:
        assert sum(kept_groups(before, text).values()) == sum(kept_groups(after, text).values())


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["weight", "kernel", "channel", "input_channel", "2:4", "1:16", "block:4x8"])
def test_granularities_read_as_they_are_written(text):
    assert str(sparsity.parse_granularity(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filter", "unknown granularity 'filter'; known: weight, kernel, channel, input_channel, N:M, block:AxB"),
        ("4:2", "keeps 4 of every 2 weights; N:M needs 1 <= N < M"),
        ("0:4", "keeps 0 of every 4"),
        ("4:4", "keeps 4 of every 4"),
        ("N:M", "needs numbers, such as 2:4"),
        ("block:0x4", "blocks without weights"),
        ("block:4", "unknown granularity 'block:4'"),
        ("2:4 ", "unknown granularity '2:4 '"),
    ],
)
def test_names_that_are_none(text, message):
    with pytest.raises(UserError, match=message.replace("'", ".")) as caught:
        sparsity.parse_granularity(text)
    assert "\n" not in str(caught.value)


def check(text, density, allocation="global"):
    sparsity.validate(pattern(text, allocation), KERNELS, density)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("3:8", 0.375), r"3:8 cannot prune conv/kernel \[2, 2, 4, 3\]: its 4 inputs are no multiple of 8; exclude"),
        (
            ("kernel", 0.5),
            r"fc/kernel \[4, 6\]: only convolutions .* have kernels of h x w; .* leave dense: fc/kernel$",
        ),
        (("block:2x3", 0.5), r"conv/kernel .*: blocks are for dense layers .* dense: conv/kernel, down/kernel$"),
        (("2:4", 0.4), "2:4 has density 0.5 and no other, found 0.4"),
        (("2:4", 0.5, "erk"), "allocation must be global or uniform"),
        (("weight", 0.5, "layerwise"), "unknown allocation 'layerwise'; known: global, uniform, erk"),
        (("weight", 0.0), r"density is 0.0; a density must lie in \(0, 1\]"),
        (("weight", 1.5), r"density is 1.5; a density must lie in \(0, 1\]"),
        (("weight", float("nan")), "density is nan"),
        (("channel", 0.1), r"keeps 2 of 12 groups \(granularity channel\), fewer than the 3 layers"),
        (("channel", 0.1, "uniform"), "less than one group in every layer .* at most 6 groups"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        check(*arguments)
    assert "\n" not in str(caught.value)


def test_what_can_be_is_not_refused():
    check("channel", 0.25)
    check("channel", 0.2, "uniform")
    check("1:4", 0.25, "uniform")


def test_a_vector_has_no_channels():
    with pytest.raises(UserError, match=r"bias \[3\]: it has no input and output axes"):
        sparsity.validate(pattern("channel"), {"bias": jnp.zeros(3)}, 0.5)
