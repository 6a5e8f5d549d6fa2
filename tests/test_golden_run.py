"""A whole VPNs run under the reference protocol against an independent PyTorch implementation of it.

`golden/resnet18_pad.json` holds its numbers, `golden/recipe.py` makes its inputs. Roundings grow in such a run: Adam's
first updates are signs of gradients, and a weight whose score sits on the threshold may fall on either side. How far
apart each loss of two right programs may lie was measured (`golden/spread.py`), with no look at the golden numbers. The
other tolerances are those that an independent port was seen to need.
"""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import recipe
from tests.training import tiny
from vpns_jax import models, prompting, sparsity
from vpns_jax.training import passes
from vpns_jax.training.batches import Resident
from vpns_jax.training.evaluation import estimate_mapping, evaluate
from vpns_jax.training.network import Network, Subnetwork, predict
from vpns_jax.training.optimizers import Optimizer
from vpns_jax.training.stage import Recipe, learn_scores, learn_weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_winograd")]

FOLDER = Path(__file__).parent / "golden"
GOLDEN = json.loads((FOLDER / "resnet18_pad.json").read_text())
SPREAD = json.loads((FOLDER / "spread.json").read_text())
SIZE, CLASSES, BATCH, ITERATIONS, EPOCHS, DENSITY = 64, 7, 16, 3, 2, 0.2

# Single weights, wherever they are. The stage selects with it, too, so the tests share its program.
PATTERN = sparsity.Pattern()
NETWORK = Network(
    model=models.create("resnet18"),
    prompt=prompting.create("pad", canvas_size=SIZE, pad_size=8),
    plain=None,
    mean=tuple(recipe.IMAGENET_MEAN.tolist()),
    std=tuple(recipe.IMAGENET_STD.tolist()),
)


def recipe_of(optimizer, learning_rate):
    """Makes a recipe with the same optimizer for every group, as in each stage of the released code."""
    rule = Optimizer(
        optimizer=optimizer,
        learning_rate=learning_rate,
        momentum=0.9,
        weight_decay=1e-4,
        decay="coupled",
        schedule="cosine_epochs",
        warmup_epochs=0.0,
    )
    return Recipe("reference", BATCH, EPOCHS, dict.fromkeys(("scores", "weights", "prompt"), rule))


def load(folder):
    """Loads torchvision's ResNet-18 with the golden weights, by our own reader."""
    shapes = json.loads((FOLDER / "logits.json").read_text())["resnet18@224"]["state_dict"]
    path = folder / "resnet18.safetensors"
    models.save_safetensors(path, {name: recipe.torch_tensor(name, tuple(shape)) for name, shape in shapes.items()})
    return jax.tree.map(jnp.asarray, models.load_pretrained("resnet18", path))


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    return load(tmp_path_factory.mktemp("weights"))


def score_probes(variables, scores, names):
    """Makes probes of scores in torch's layout; a score's name is the kernel's name with another ending."""
    params = merge(variables["params"], scores)
    exported = models.export("resnet18", {"params": params, "batch_stats": variables["batch_stats"]})
    return {name: recipe.probe(name, exported[name.replace("popup_scores", "weight")]) for name in names}


def batches(seed):
    images, labels = recipe.trace_batches(seed, BATCH * ITERATIONS, SIZE, CLASSES)
    return Resident(images=jnp.asarray(images), labels=jnp.asarray(labels.astype(np.int32)))


A, B = batches(11), batches(12)


def batch(data, i):
    rows = slice(i * BATCH, (i + 1) * BATCH)
    return data.images[rows], data.labels[rows]


@functools.partial(jax.jit, static_argnames=("stage", "pass_"))
def one_pass(stage, pass_, state, batch):
    return passes.update(stage, pass_, state, batch, jax.random.key(0))


def kept_by_name(mask, variables):
    """Counts the kept weights of each kernel, by the kernel's name in the golden file."""
    floats = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), mask)
    masked = {"params": merge(variables["params"], floats), "batch_stats": variables["batch_stats"]}
    exported = models.export("resnet18", masked)
    return {name: exported[name.replace("popup_scores", "weight")].sum() for name in GOLDEN["kept0"]}


def merge(tree, part):
    return {k: merge(v, part[k]) if isinstance(part.get(k), dict) else part.get(k, v) for k, v in tree.items()}


def whole_canvas(prompt):
    return np.asarray(NETWORK.prompt.perturbation(prompt)).transpose(2, 0, 1)


def begin(variables):
    """Makes the scores, the number to prune, and the dense network."""
    scores = sparsity.scaled_init(models.prunable(variables["params"]))
    pruned = jnp.int32(sparsity.pruned_count(scores, DENSITY))
    dense = Subnetwork(
        weights=variables["params"],
        mask={},
        batch_stats=variables["batch_stats"],
        prompt=NETWORK.prompt.init(),
        mapping=jnp.arange(CLASSES),
    )
    return scores, pruned, dense


@pytest.fixture(scope="module")
def start(variables):
    return begin(variables)


def test_initial_scores(variables, start):
    scores, _, _ = start
    for name, probe in score_probes(variables, scores, GOLDEN["init_score_probe"]).items():
        expected = GOLDEN["init_score_probe"][name]
        np.testing.assert_allclose(probe, expected, rtol=1e-5, atol=1e-5 * abs(expected[1]))


@pytest.fixture(scope="module")
def first_mask(start):
    scores, pruned, _ = start
    return PATTERN.select(scores, pruned)


def test_first_threshold_is_exact(variables, start, first_mask):
    scores, pruned, _ = start
    dropped = jax.tree.map(lambda score, keep: np.abs(score)[~np.asarray(keep)], jax.device_get(scores), first_mask)
    magnitudes = np.concatenate(jax.tree.leaves(dropped))
    assert magnitudes.size == int(pruned)
    assert float(magnitudes.max()) == GOLDEN["threshold0"]
    assert kept_by_name(first_mask, variables) == GOLDEN["kept0"]


def test_dense_prompted_logits(start):
    logits = predict(NETWORK, start[2], batch(A, 0)[0], prompted=True)
    expected = GOLDEN["dense_prompted_logits_probe"]
    np.testing.assert_allclose(recipe.probe("logits", np.asarray(logits)), expected, rtol=1e-5, atol=1e-5 * expected[1])


def test_label_mappings(start, first_mask):
    _, _, dense = start
    assert estimate_mapping(NETWORK, dense, B, batch_size=BATCH).tolist() == GOLDEN["mapping_dense"]
    sparse = dataclasses.replace(dense, mask=first_mask)
    assert estimate_mapping(NETWORK, sparse, B, batch_size=BATCH).tolist() == GOLDEN["mapping"]


def kth_smallest_magnitude(tree, k):
    """The k-th smallest magnitude by NumPy, which takes a tenth of the time of a program that is compiled quickly."""
    flat = np.concatenate([np.abs(np.asarray(leaf)).ravel() for leaf in jax.tree.leaves(tree)])
    return float(np.partition(flat, k - 1)[k - 1])


def prune(scores, pruned, dense):
    """Runs stage 1 pass by pass; returns its rows, the stage and its last state."""
    start = dataclasses.replace(dense, mapping=jnp.asarray(GOLDEN["mapping"]))
    groups = {"pruned": pruned, "pattern": PATTERN}
    stage, state = learn_scores(NETWORK, start, scores, recipe_of("adam", 1e-4), ITERATIONS, **groups)
    rows = []
    for step in range(EPOCHS * ITERATIONS):
        row = {}
        for letter, pass_, data in zip("ab", stage.passes, (A, B), strict=True):
            state, metrics = one_pass(stage, pass_, state, batch(data, step % ITERATIONS))
            row[f"loss_{letter}"] = float(metrics.loss.compute())
            row[f"thr_{letter}"] = kth_smallest_magnitude(state.learned["scores"], int(pruned))
        row["prompt_probe"] = recipe.probe("prompt", whole_canvas(state.learned["prompt"]))
        rows.append(row)
    return rows, stage, state


def retrain(sparse):
    """Runs stage 2 from the end of stage 1, pass by pass; returns its rows, the stage and its last state."""
    stage, state = learn_weights(NETWORK, sparse, recipe_of("sgd", 0.01), ITERATIONS)
    rows = []
    for step in range(EPOCHS * ITERATIONS):
        row = {}
        for letter, pass_, data in zip("ab", stage.passes, (A, B), strict=True):
            state, metrics = one_pass(stage, pass_, state, batch(data, step % ITERATIONS))
            row[f"loss_{letter}"] = float(metrics.loss.compute())
        row["prompt_probe"] = recipe.probe("prompt", whole_canvas(state.learned["prompt"]))
        rows.append(row)
    return rows, stage, state


@pytest.fixture(scope="module")
def pruned_run(start):
    return prune(*start)


@pytest.fixture(scope="module")
def retrained_run(pruned_run):
    _, stage, state = pruned_run
    return retrain(stage.subnetwork(state))


def assert_losses(stage, rows):
    """Two draws of a loss typically differ by sqrt(2) standard deviations, and rarely by 6."""
    for row, expected, deviation in zip(rows, GOLDEN[stage], SPREAD[stage], strict=True):
        for loss in ("loss_a", "loss_b"):
            assert row[loss] == pytest.approx(expected[loss], rel=1e-5, abs=6 * deviation[loss]), loss


def test_prune_losses_and_thresholds(pruned_run):
    rows, _, _ = pruned_run
    assert_losses("prune", rows)
    for row, expected in zip(rows, GOLDEN["prune"], strict=True):
        for letter in "ab":
            assert row[f"thr_{letter}"] == pytest.approx(expected[f"thr_{letter}"], rel=1e-4)
        assert row["prompt_probe"][1] == pytest.approx(expected["prompt_probe"][1], rel=0.01)


def test_after_prune(variables, pruned_run):
    _, stage, state = pruned_run
    sparse = stage.subnetwork(state)
    for name, kept in kept_by_name(sparse.mask, variables).items():
        assert kept == pytest.approx(GOLDEN["kept"][name], rel=0.002), name
    for name, probe in score_probes(variables, state.learned["scores"], GOLDEN["score_probe"]).items():
        assert probe[1] == pytest.approx(GOLDEN["score_probe"][name][1], rel=1e-4), name
    exported = models.export("resnet18", {"params": variables["params"], "batch_stats": state.batch_stats})
    for name, (_, norm) in GOLDEN["bn_probe"].items():
        assert recipe.probe(name, exported[name])[1] == pytest.approx(norm, rel=0.01), name
    loss = eval_loss(sparse)
    assert loss == pytest.approx(GOLDEN["eval_loss_after_prune"], rel=0.15)


def test_frozen_weights_are_untouched(variables, pruned_run):
    _, stage, state = pruned_run
    weights = stage.subnetwork(state).weights
    assert tiny.same(weights, variables["params"])


def test_retrain_losses(retrained_run):
    rows, _, _ = retrained_run
    assert_losses("retrain", rows)
    for row, expected in zip(rows, GOLDEN["retrain"], strict=True):
        assert row["prompt_probe"][1] == pytest.approx(expected["prompt_probe"][1], rel=0.01)


def test_after_retrain(retrained_run):
    _, stage, state = retrained_run
    held = {"params": state.learned["weights"], "batch_stats": state.batch_stats}
    exported = models.export("resnet18", held)
    for name, (_, norm) in GOLDEN["weight_probe"].items():
        if name.endswith(("weight", "bias")):
            assert recipe.probe(name, exported[name])[1] == pytest.approx(norm, rel=0.02), name
    loss = eval_loss(stage.subnetwork(state))
    assert loss == pytest.approx(GOLDEN["eval_loss_after_retrain"], rel=0.15)


def eval_loss(subnetwork):
    images, labels = batch(B, 0)
    first = Resident(images=images, labels=labels)
    return float(evaluate(NETWORK, subnetwork, first, batch_size=BATCH).plain["loss"])
