"""SynFlow: the theorems of its paper, for every layer of every network."""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.pruners import cells
from tests.pruners.test_every_model import MODELS
from vpns_jax import models, sparsity, trees
from vpns_jax.errors import UserError
from vpns_jax.pruners import METHODS
from vpns_jax.pruners import flow as flows
from vpns_jax.pruners.methods import scoring, synflow
from vpns_jax.training.batches import Resident
from vpns_jax.training.network import Network, Subnetwork

WIDTHS = (6, 100, 100)


class Chain(nn.Module):
    """Linear layers without biases, on an image of 2 x 2 x 3 values."""

    num_classes: int = 4

    @nn.compact
    def __call__(self, x, *, train=False):
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate((*WIDTHS, self.num_classes)):
            x = nn.Dense(width, use_bias=False, name=f"layer{i}")(x)
        return x


@jax.jit
def chain(scale=1.0):
    """Makes the weights of the chain; those of layer 2 are scaled."""
    params = Chain().init(jax.random.key(0), jnp.zeros((1, 2, 2, 3)))["params"]
    return {**params, "layer2": jax.tree.map(lambda w: scale * w, params["layer2"])}


def subnetwork(weights, stats=None):
    return Subnetwork(weights, {}, stats or {}, {}, jnp.arange(4))


def everything(weights):
    return jax.tree.map(lambda w: np.ones(w.shape, bool), models.prunable(weights))


def flow(model, weights, mask, *, canvas_size):
    """Computes the flow through the weights that a mask keeps."""
    left = jax.jit(sparsity.apply)(sparsity.subtree(weights, mask), mask)
    inputs = (jnp.ones((1, canvas_size, canvas_size, 3)), {})
    return flows.synaptic_flow(synflow.in_double(model), weights, left, inputs, sparsity.Pattern())


@pytest.fixture
def run(tmp_path):
    return cells.cell(tmp_path, "synflow")


@dataclasses.dataclass(frozen=True)
class AsItIs:
    """Maps each label to itself."""

    def of(self, problem, mask):
        del mask
        return problem.source.mapping


@pytest.fixture
def problem(run):
    """Prunes the chain to so low a density that each layer can keep only one weight."""
    tiny = run.problem()
    weights = chain(scale=1e-2)
    kernels, kept = models.prunable(weights), len(WIDTHS) + 1
    size = sparsity.selection.count(kernels)
    network = Network(
        Chain(), dataclasses.replace(tiny.network.prompt, canvas_size=2), None, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)
    )
    return dataclasses.replace(
        tiny,
        network=network,
        source=subnetwork(weights),
        prunable=kernels,
        # Slightly below kept / size, so that rounding keeps exactly that many.
        density=(kept - 0.5) / size,
        options=synflow.Options(rounds=100),
        mapping=AsItIs(),
    )


def test_scores_by_hand():
    """For one input pixel (3 channels), 2 units and 1 logit, S is |w v| for each path, and its sums."""
    w, v = np.asarray([[1.0, -2.0], [0.0, 3.0], [-1.0, 0.0]], np.float32), np.asarray([[-4.0], [0.5]], np.float32)

    class Pair(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            x = nn.Dense(2, use_bias=False, name="a")(x.reshape(1, -1))
            return nn.Dense(1, use_bias=False, name="b")(x)

    weights = {"a": {"kernel": jnp.asarray(w)}, "b": {"kernel": jnp.asarray(v)}}
    scores = flow(Pair(), weights, everything(weights), canvas_size=1)
    # Through unit 1: (1 + 0 + 1) 4 = 8; through unit 2: (2 + 3 + 0) 0.5 = 2.5. Shares of the largest, 8.
    np.testing.assert_allclose(scores["a"]["kernel"], np.asarray([[4, 1], [0, 1.5], [4, 0]]) / 8)
    np.testing.assert_allclose(scores["b"]["kernel"], [[1.0], [2.5 / 8]])
    pruned = {"a": {"kernel": jnp.asarray([[False, True], [True, True], [True, True]])}, "b": everything(weights)["b"]}
    scores = flow(Pair(), weights, pruned, canvas_size=1)
    np.testing.assert_allclose(scores["a"]["kernel"], np.asarray([[0, 1], [0, 1.5], [4, 0]]) / 4)


@pytest.mark.slow
def test_what_flows_into_a_unit_flows_out_of_it():
    """Theorem 1 for each unit of a masked chain."""
    weights = chain()
    mask = sparsity.topk_mask(models.prunable(weights), 0.6)
    scores = flow(Chain(), weights, mask, canvas_size=2)
    layers = [np.asarray(scores[f"layer{i}"]["kernel"], np.float64) for i in range(len(WIDTHS) + 1)]
    for before, after in itertools.pairwise(layers):
        np.testing.assert_allclose(before.sum(axis=0), after.sum(axis=1), rtol=1e-5)
    for leaf, keep in zip(jax.tree.leaves(scores), jax.tree.leaves(mask), strict=True):
        assert float(leaf.min()) >= 0
        assert not np.any(np.asarray(leaf)[~np.asarray(keep)])


@pytest.mark.slow
def test_no_layer_is_emptied_before_it_must_be(run, problem):
    """Theorem 3: SynFlow keeps one path until the end; other criteria have emptied a layer long before."""
    mask = synflow.prune(problem, run.runner).mask
    assert [int(leaf.sum()) for leaf in jax.tree.leaves(mask)] == [1, 1, 1, 1]

    @jax.jit
    def logits(weights):
        return Chain().apply({"params": sparsity.apply(weights, mask)}, jnp.ones((1, 2, 2, 3)))

    assert np.abs(logits(problem.source.weights)).max() > 0
    for pruner, kept in (("magnitude", 40), ("snip", 12)):
        easier = dataclasses.replace(
            problem,
            density=(kept - 0.5) / sparsity.selection.count(problem.prunable),
            options=scoring.Options(batches=1, temperature=1.0),
            train=_split(),
        )
        counts = [int(leaf.sum()) for leaf in jax.tree.leaves(METHODS[pruner].prune(easier, run.runner).mask)]
        assert sum(counts) == kept
        assert min(counts) == 0, pruner


def _split():
    images = np.random.default_rng(0).integers(0, 255, (8, 2, 2, 3)).astype(np.uint8)
    large = np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    return Resident(*jax.device_put((images, (np.arange(8) % 4).astype(np.int32), large)))


@pytest.mark.parametrize(("density", "rounds"), [(0.01, 100), (0.5, 3), (1.0, 4), (0.2, 1)])
def test_the_schedule_is_exponential_and_ends_at_the_target(density, rounds):
    left = synflow.schedule(density, rounds)
    assert len(left) == rounds
    assert left[-1] == density
    np.testing.assert_allclose(np.diff(np.log([1.0, *left])), np.log(density) / rounds)


def totals(name, *, biases):
    """The total flow of each layer of a network with random weights; its biases are those or zero."""
    model = MODELS[name]
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda x: rng.normal(0, 0.05, x.shape).astype(np.float32), variables["params"])
    if not biases:
        weights = trees.unflatten({path: w * (not path.endswith("bias")) for path, w in trees.flatten(weights).items()})
    scores = flow(model, jax.device_put(weights), everything(weights), canvas_size=32)
    return {path: float(np.asarray(leaf).sum()) for path, leaf in trees.flatten(scores).items()}


VGG = [f"{layer}/kernel" for layer in ("conv1_1", "conv2_1", "conv2_2", "fc1", "fc2", "head")]


@pytest.mark.slow
def test_flow_is_conserved_from_layer_to_layer_without_biases():
    found = totals("vgg", biases=False)
    np.testing.assert_allclose([found[path] for path in VGG], found["head/kernel"], rtol=1e-5)
    found = totals("vit", biases=False)
    assert all(total > 0 for total in found.values())
    for i in range(2):
        parts = [found[f"block_{i}/attention/{part}/kernel"] for part in ("query", "key", "value", "out")]
        np.testing.assert_allclose(parts, parts[-1], rtol=1e-5)


@pytest.mark.slow
def test_biases_add_to_the_flow_along_the_way():
    found = totals("vgg", biases=True)
    assert all(found[after] >= found[before] * (1 - 1e-5) for before, after in itertools.pairwise(VGG))
    found = totals("vit", biases=True)
    assert all(total > 0 for total in found.values())
    for i in range(2):
        inside = {part: found[f"block_{i}/attention/{part}/kernel"] for part in ("query", "key", "value", "out")}
        # The biases of query, key and value have the rest.
        assert max(inside.values()) == inside["out"]
        assert min(inside.values()) > 0.2 * inside["out"]


def check_exponentials(model, weights, *, canvas_size):
    inputs = (jnp.ones((1, canvas_size, canvas_size, 3)), {})
    flows.check_exponentials(synflow.in_double(model), weights, inputs, type(model).__name__)


@pytest.mark.slow
def test_a_softmax_that_is_not_known_is_refused(problem):
    class Gated(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            x = nn.Dense(4, name="a")(x.reshape(x.shape[0], -1))
            return x * nn.softmax(x)

    weights = jax.eval_shape(Gated().init, jax.random.key(0), jnp.zeros((1, 2, 2, 3)))["params"]
    with pytest.raises(UserError, match="synflow cannot score Gated: it has a softmax") as caught:
        check_exponentials(Gated(), weights, canvas_size=2)
    assert "\n" not in str(caught.value)
    # The chain has no softmax, and SynFlow knows the attention of a ViT.
    check_exponentials(problem.network.model, problem.source.weights, canvas_size=2)
    vit = MODELS["vit"]
    variables = jax.eval_shape(vit.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    check_exponentials(vit, variables["params"], canvas_size=32)


@pytest.mark.parametrize("masked", [False, True])
def test_a_normalization_over_other_axes_is_made_linear_over_those(masked):
    norm = nn.LayerNorm(reduction_axes=(1, 2), feature_axes=(1, 2))
    x = jnp.arange(1.0, 13.0).reshape(2, 3, 2)
    params = {"scale": jnp.arange(1.0, 7.0).reshape(3, 2), "bias": jnp.full((3, 2), 0.5)}
    mask = jnp.asarray([[[True], [True], [False]]]) if masked else None
    with nn.intercept_methods(flows.linearize):
        found = norm.apply({"params": params}, x, mask=mask)
    counted = np.asarray(x)[:, : 2 if masked else 3]
    rms = np.sqrt((counted**2).mean((1, 2), keepdims=True))
    np.testing.assert_allclose(found, x / rms * params["scale"][None] + 0.5, rtol=1e-6)
