"""Pruners as functions of any model's loss: equal to the experiment's methods, exact, and clear about mistakes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from tests.pruners import cells
from tests.training import tiny
from vpns_jax import models, pruners, sparsity, trees
from vpns_jax.errors import LONGEST, UserError
from vpns_jax.pruners.any_model import mean_gradient, mean_hessian_vector, mean_squared_gradient
from vpns_jax.pruners.methods import scoring
from vpns_jax.sparsity import BudgetPattern, ChannelPattern, GradualMagnitude, Moves, Pattern, Term

X = jax.random.normal(jax.random.key(1), (3, 8, 6))
BATCHES = list(X)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.a, self.b = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        return self.b(nnx.relu(self.a(x)))


GRAPH, PARAMS = nnx.split(Net(nnx.Rngs(0)))


def apply(params, x):
    return nnx.merge(GRAPH, params)(x)


def loss(params, x):
    return jnp.mean((apply(params, x) - 1) ** 2)


def kept(mask):
    return [int(leaf.sum()) for leaf in jax.tree.leaves(mask)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["magnitude", "snip", "fisher", "grasp", "synflow"])
def test_the_mask_is_that_of_the_method_of_an_experiment(name, tmp_path):
    """On the same problem, with the experiment's loss and batches: here as a loss of any weights."""
    run = cells.cell(tmp_path, name, prune__batch_norm="frozen", scoring__batches=2)
    problem = run.problem()
    expected = pruners.METHODS[name].prune(problem, run.runner).mask
    source, weights = problem.dense(), problem.source.weights
    if name == "magnitude":
        mask = pruners.magnitude(weights, problem.density)
    elif name == "synflow":
        # As a user would: running statistics are a part of the tree.
        variables = {"params": weights, "batch_stats": source.batch_stats}
        model = problem.network.model
        image = jax.ShapeDtypeStruct((1, *[problem.network.prompt.canvas_size] * 2, 3), jnp.float32)

        def logits(variables, image):
            return model.apply(variables, image, train=False)

        mask = pruners.synflow(logits, variables, image, problem.density, rounds=problem.options.rounds)["params"]
    else:
        temperature = 1.0 if name in ("snip", "fisher") else problem.options.temperature
        batches = scoring.task_batches(problem, source, temperature=temperature)
        mask = getattr(pruners, name)(scoring.task_loss(problem), weights, batches, density=problem.density)
    assert set(trees.flatten(mask)) == set(trees.flatten(weights))
    assert tiny.same(sparsity.subtree(mask, expected), expected)


@pytest.mark.slow
def test_snip_grasp_and_fisher_by_hand():
    """For l = c (a w0 + w1)^2 / 2 with c = 1 and 3 in two batches."""
    w = {"w": jnp.asarray([[1.0, -4.0, 0.5]])}

    def quadratic(params, c):
        a, b, _ = params["w"][0]
        return c * (3 * a + b) ** 2 / 2

    # 3 a + b = -1, so g = -c (3, 1, 0), H g = -10 c c (3, 1, 0) before averages, and w g is c (-3, 4, 0).
    assert pruners.snip(quadratic, w, jnp.asarray([1.0, 3.0]), density=0.33)["w"].tolist() == [[False, True, False]]
    # The same with the signs of the losses, under which the gradients add up to zero: (3, 4, 0)^2.
    signs = jnp.asarray([1.0, -1.0])
    assert pruners.fisher(quadratic, w, signs, density=0.33)["w"].tolist() == [[False, True, False]]
    assert pruners.fisher(quadratic, w, signs, density=0.66)["w"].tolist() == [[True, True, False]]
    # w (H g) has the signs of (-3, 4, 0): the unused weight is better than the first one.
    assert pruners.grasp(quadratic, w, jnp.asarray([1.0, 3.0]), density=0.66)["w"].tolist() == [[False, True, True]]


@pytest.fixture(scope="module")
def dense():
    """SNIP's mask of half of the 80 weights."""
    return pruners.snip(loss, PARAMS, BATCHES, density=0.5)


def test_the_mask_has_the_structure_of_the_weights(dense):
    assert type(dense) is type(PARAMS)
    assert set(trees.named_leaves(dense)) == {"a/kernel", "b/kernel"}
    assert sum(kept(dense)) == 40


@pytest.mark.slow
def test_one_program_serves_all_batches_and_jit(dense):
    traced = []

    def counted(params, x):
        traced.append(1)
        return loss(params, x)

    jitted = jax.jit(lambda params, batches: pruners.snip(counted, params, batches, density=0.5))(PARAMS, BATCHES)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, jitted, dense))
    # Once for its shapes, and once for all batches.
    assert len(traced) == 2


@pytest.mark.slow
def test_split_weights_and_batches_give_the_same_mask(dense):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def put(x, *spec):
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))

    params = jax.tree.map(lambda leaf: put(leaf, *[None] * (leaf.ndim - 1), "data"), PARAMS)
    with jax.set_mesh(mesh):
        mask = pruners.snip(loss, params, [put(x, "data") for x in BATCHES], density=0.5)
    assert jax.tree.all(jax.tree.map(np.array_equal, mask, dense))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("granularity", "allocation", "counts"),
    [
        ("weight", "uniform", [24, 16]),
        # ERK: densities of (6 + 8) e and (8 + 4) e over 48 and 32 weights, with e = 40 / 26.
        ("weight", "erk", [48 - int(48 * (1 - 14 * 40 / 26 / 48)), 32 - int(32 * (1 - 12 * 40 / 26 / 32))]),
        ("1:2", "uniform", [24, 16]),
        ("block:2x2", "uniform", [24, 16]),
        ("channel", "uniform", [24, 16]),
        ("input_channel", "uniform", [24, 16]),
    ],
)
def test_densities_and_granularities(granularity, allocation, counts):
    pattern = Pattern(sparsity.parse_granularity(granularity), allocation)
    assert kept(pruners.magnitude(PARAMS, 0.5, pattern=pattern)) == counts


def test_random_masks_differ_by_their_key_and_are_exact():
    masks = [pruners.random(PARAMS, 0.3, jax.random.key(seed)) for seed in (0, 1)]
    assert [sum(kept(mask)) for mask in masks] == [24, 24]
    assert not jax.tree.all(jax.tree.map(jnp.array_equal, *masks))


def test_synflow_of_an_nnx_model_empties_no_layer():
    mask = pruners.synflow(apply, PARAMS, X[0, :1], 0.03, rounds=20)
    assert sum(kept(mask)) == 3
    assert min(kept(mask)) >= 1


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: pruners.snip(loss, PARAMS, BATCHES, density=0), "density is 0"),
        (lambda: pruners.grasp(loss, PARAMS, [], density=0.5), "grasp needs at least one batch"),
        (
            lambda: pruners.snip(lambda p, x: (loss(p, x), x), PARAMS, BATCHES, density=0.5),
            "this one returns a tuple: return the loss alone",
        ),
        (lambda: pruners.snip(apply, PARAMS, BATCHES, density=0.5), r"returns float32 of shape \(8, 4\): return its"),
        (
            lambda: pruners.magnitude(
                PARAMS, 0.5, prunable=lambda params: sparsity.prunable(params, select=lambda path, leaf: False)
            ),
            "nothing is selected",
        ),
        (lambda: pruners.snip(lambda p, x: jnp.sum(x), PARAMS, BATCHES, density=0.5), "scores are all 0"),
        (
            lambda: pruners.magnitude(PARAMS, 0.5, pattern=Pattern(sparsity.parse_granularity("2:4"))),
            "its 6 inputs are no multiple of 4",
        ),
        (lambda: pruners.synflow(apply, PARAMS, X[0, :1], 0.5, rounds=0), "synflow.rounds is 0"),
        (lambda: pruners.synflow(lambda p, x: nn.softmax(apply(p, x)), PARAMS, X[0, :1], 0.5), "it has a softmax"),
    ],
)
def test_mistakes_are_one_line(call, line):
    with pytest.raises(UserError, match=line) as raised:
        call()
    assert len(str(raised.value)) <= LONGEST
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_our_own_models_may_be_pruned_by_their_own_rule():
    """A nested dict of the kernels alone serves, too."""
    mask = pruners.magnitude(dict(tiny.variables())["params"], 0.5, prunable=models.prunable)
    assert set(trees.named_leaves(mask)) == {"conv1/kernel", "head/kernel"}
    assert np.sum(kept(mask)) == 34


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_means_over_many_batches_of_half_precision(dtype):
    """Of equal terms bfloat16 adds 256, float16 2,048; and 1e-4 has no square in float16."""
    w, count = {"w": jnp.full((1, 2), 1, dtype)}, 2100
    small = jnp.asarray(1e-4, dtype)

    def square(params, batch):
        return jnp.sum(params["w"] ** 2 * batch) / 2

    batches = [jnp.ones((), dtype)] * count
    found = mean_gradient(square, w, w, batches, Pattern()), mean_hessian_vector(square, w, w, w, batches, Pattern())
    for mean in found:
        np.testing.assert_array_equal(mean["w"], np.ones((1, 2), np.float32))
    squared = mean_squared_gradient(square, w, w, [small], Pattern())["w"]
    np.testing.assert_allclose(squared, np.full((1, 2), np.float32(small) ** 2), rtol=1e-6)


PLACES = {
    "magnitude": lambda **how: pruners.magnitude(PARAMS, 0.5, **how),
    "first scores": lambda **how: sparsity.first_scores(PARAMS, **how),
    "with scores": lambda **how: sparsity.with_scores(loss, PARAMS, 0.5, **how),
    "with largest": lambda **how: sparsity.with_largest(loss, 0.5, **how)(PARAMS, X[0]),
    "gradual": lambda **how: sparsity.gradual(optax.sgd(1), 0.5, GradualMagnitude(Moves(end=2)), **how).init(PARAMS),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "pattern", [Pattern(), Pattern(allocation="erk"), ChannelPattern(), BudgetPattern(terms=(Term("", "", 1),))]
)
def test_a_tree_without_weights_is_a_mistake(place, pattern):
    with pytest.raises(UserError, match="nothing may be pruned"):
        PLACES[place](pattern=pattern, prunable=lambda params: {})


def test_random_groups_have_the_same_chance_whatever_their_size():
    params = {"small": {"kernel": jnp.ones((1, 1, 16, 16))}, "large": {"kernel": jnp.ones((3, 3, 16, 16))}}
    pattern = Pattern(sparsity.parse_granularity("kernel"))
    large, small = kept(pruners.random(params, 0.1, jax.random.key(0), pattern=pattern))
    # Of 512 groups 52 are kept: 26 +- 3.4 of each size.
    assert large // 9 + small == 52
    assert 12 < small < 40


def test_random_scores_of_single_weights_are_drawn_apart():
    weights, key = {"a": jnp.ones((4, 3)), "b": jnp.ones((2, 2))}, jax.random.key(3)
    expected = sparsity.random(weights, key)
    for granularity in ("weight", "1:2"):
        found = Pattern(sparsity.parse_granularity(granularity)).random(weights, key)
        assert jax.tree.all(jax.tree.map(jnp.array_equal, found, expected))
