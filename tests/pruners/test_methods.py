"""Every method from the config to its result: its mask, its prompt and its cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.pruners import cells
from tests.training import tiny
from vpns_jax import sparsity
from vpns_jax.analysis.confusion import Confusion
from vpns_jax.errors import UserError
from vpns_jax.experiment import budget, config, timing
from vpns_jax.experiment.cell import CellRun
from vpns_jax.experiment.plan import Cell
from vpns_jax.parallel import sharding
from vpns_jax.pruners import METHODS, method
from vpns_jax.training.network import predict
from vpns_jax.training.runner import Runner

pytestmark = pytest.mark.slow

N = 68  # prunable weights of the tiny network: 2 x 2 x 3 x 4 and 4 x 5
STEPS = cells.ITERATIONS
# The cost of stage prune: (optimizer steps, forward passes).
COSTS = {
    "dense": (0, 0),
    "random": (0, 0),
    "magnitude": (0, 0),
    "snip": (0, 4),  # a gradient on each of 4 batches
    "fisher": (0, 4),
    "grasp": (0, 12),  # a gradient and a Hessian-vector product on each
    "synflow": (0, 5),  # a round each
    "imp": (4 * STEPS, 4 * STEPS),  # 0.8^4 <= 0.5: 4 rounds of one epoch
    "hydra": (STEPS, STEPS),
    "hydra_layerwise": (STEPS, STEPS),
    "bip": (2 * STEPS, 2 * STEPS),  # two levels
    "transfer": (0, 0),
    "vpns": (STEPS, STEPS),
}


def test_every_method_is_tested():
    assert set(COSTS) == set(METHODS)


# One with a prompt of each way to find a mask; below, "hydra+prompt" is compared with "vpns", and "bip+prompt" has a
# new head.
PROMPTED = [f"{name}+prompt" for name in ("dense", "snip", "imp")]


@pytest.mark.parametrize("name", [*METHODS, *PROMPTED])
def test_a_cell_from_start_to_end(name, tmp_path):
    base = name.removesuffix("+prompt")
    density = 1.0 if base == "dense" else 0.5
    done = cells.finish(cells.cell(tmp_path, name, density=density))
    result, kept = done.result, sum(int(leaf.sum()) for leaf in jax.tree.leaves(done.best.mask))
    assert kept == (N if base == "dense" else N // 2)
    assert result["achieved_density"] == pytest.approx(kept / N)
    # Each of 48 weights is used at 16 positions, each of the head's 20 weights at one.
    conv, head = (int(leaf.sum()) for leaf in jax.tree.leaves(done.best.mask))
    assert result["multiply_adds"]["masked"] == 16 * conv + head
    assert result["multiply_adds"]["dense"] == 788
    prompted = name.endswith("+prompt") or name == "vpns"
    for split in ("val", "test"):
        assert (result[split]["best"]["prompted"] is not None) is prompted
    assert (result["calibration_error"]["prompted"] is not None) is prompted
    assert 0 <= result["calibration_error"]["plain"] <= 1
    # The counts are those of the network whose accuracy is reported; each class has a third of the images.
    for way, counts in result["confusion"].items():
        confusion = None if counts is None else Confusion.from_json(counts)
        assert (confusion is not None) is (prompted or way == "plain")
        if confusion is not None:
            assert confusion.accuracy == pytest.approx(result["test"]["best"][way])
            assert confusion.images.tolist() == [tiny.IMAGES // tiny.CLASSES] * tiny.CLASSES
            assert result["mean_class_accuracy"][way] == pytest.approx(confusion.accuracy)
    assert result["majority_class"] == pytest.approx(1 / tiny.CLASSES)
    updates, passes = COSTS[base]
    assert result["optimizer_steps"] == ({"prune": updates} if updates else {}) | {"retrain": STEPS}
    assert result["forward_passes"] == ({"prune": passes} if passes else {}) | {"retrain": STEPS}
    # The progress bar was told the right number of epochs.
    assert len(done.run.recorder.rows()) == budget.epochs(config.parse(cells.tree()), name, density).total
    if prompted:
        assert not tiny.same(done.best.prompt, done.run.network.prompt.init())


@pytest.mark.parametrize("name", ["vpns", "bip", "imp", "snip+posthoc"])
def test_with_a_matched_budget_all_train_for_as_many_passes(name, tmp_path):
    run = cells.cell(tmp_path, name, budget="matched", prune__epochs=2, retrain__epochs=2, imp__drop=0.5)
    done = cells.finish(run)
    assert sum(done.result["optimizer_steps"].values()) == 4 * STEPS
    # The passes for scoring come on top, and are counted.
    assert sum(done.result["forward_passes"].values()) == 4 * STEPS + (4 if name.startswith("snip") else 0)


def test_on_all_devices_and_again_from_the_checkpoints(tmp_path):
    name, mesh = "synflow", sharding.make_mesh(tiny.BATCH)
    with jax.set_mesh(mesh):
        setup = cells.setup(tmp_path, name)
        parts = {part: getattr(setup, part) for part in ("train", "val", "test", "source")}
        setup = dataclasses.replace(setup, **sharding.replicate(parts, mesh))
        first, again = (cells.finish(CellRun(setup, Cell(name, 0.5, 7))) for _ in range(2))
    assert tiny.same(first.best, again.best)
    assert first.result == again.result


def test_timing_runs_what_evaluation_compiled(tmp_path, caplog):
    # Programs that other tests compiled would hide the difference.
    predict.clear_cache()
    with caplog.at_level("WARNING"), jax.log_compiles():
        done = cells.finish(cells.cell(tmp_path, "random"))
        assert "Compiling jit(predict)" in caplog.text
        caplog.clear()
        timed = _timed(done)
        assert "Compiling jit(predict)" not in caplog.text
    assert timed["batch_size"] == tiny.BATCH
    assert min(timed["dense"], timed["masked"]) > 0


def _timed(done):
    best, (images, _) = sharding.to_host((done.best, tiny.split(seed=2).examples(tiny.BATCH)))
    return timing.masked(done.run.network, best, images)


def test_hydra_with_a_prompt_is_vpns(tmp_path):
    first, second = (cells.finish(cells.cell(tmp_path, name)) for name in ("vpns", "hydra+prompt"))
    assert tiny.same(first.best, second.best)


def test_layerwise_counts_are_exact(tmp_path):
    done = cells.finish(cells.cell(tmp_path, "hydra_layerwise", density=0.3))
    for leaf in jax.tree.leaves(done.pruned.mask):
        assert int((~leaf).sum()) == int(0.7 * leaf.size)


def test_random_masks_are_drawn_by_the_seed(tmp_path):
    run = cells.cell(tmp_path, "random")
    problem = run.problem()
    mask = METHODS["random"].prune(problem, run.runner).mask
    assert tiny.same(mask, METHODS["random"].prune(problem, run.runner).mask)
    assert not tiny.same(mask, sparsity.topk_mask(problem.prunable, 0.5))


def test_magnitude_is_the_pretrained_weights_top(tmp_path):
    run = cells.cell(tmp_path, "magnitude")
    problem = run.problem()
    pruned = METHODS["magnitude"].prune(problem, run.runner)
    assert tiny.same(pruned.mask, sparsity.topk_mask(problem.prunable, 0.5))
    assert tiny.same(pruned.weights, problem.source.weights)


def test_ties_that_decide_what_is_kept_are_said(tmp_path):
    """If 40 of 68 weights are equal, their positions decide which are kept."""
    run = cells.cell(tmp_path, "magnitude")
    problem = run.problem()
    kernel = jnp.where(jnp.arange(48).reshape(2, 2, 3, 4) < 40, 1.0, 2.0)
    tied = {**problem.prunable, "conv1": {"kernel": kernel}}
    METHODS["magnitude"].prune(dataclasses.replace(problem, prunable=tied), run.runner)
    (note,) = run.runner.notes
    assert "ties decided" in note
    constant = jax.tree.map(jnp.ones_like, problem.prunable)
    with pytest.raises(UserError, match="scores are all 1"):
        METHODS["magnitude"].prune(dataclasses.replace(problem, prunable=constant), run.runner)


class Untrained(Runner):
    """Leaves every state as it is."""

    def run(self, name, stage, state, end, opened=None, *, start=0):
        return state


@pytest.mark.parametrize("name", ["hydra", "bip"])
def test_ties_of_learned_scores_are_said_once(tmp_path, name):
    """The mask with which learning begins is no result, so nothing is said of its ties."""
    run = cells.cell(tmp_path, name)
    problem = run.problem()
    kernel = jnp.where(jnp.arange(48).reshape(2, 2, 3, 4) < 40, 1.0, 2.0)
    tied = dataclasses.replace(problem, prunable={**problem.prunable, "conv1": {"kernel": kernel}})
    runner = Untrained(**{field.name: getattr(run.runner, field.name) for field in dataclasses.fields(Runner)})
    METHODS[name].prune(tied, runner)
    (note,) = runner.notes
    assert "ties decided" in note


def test_a_mask_from_elsewhere_on_the_pretrained_weights(tmp_path):
    run = cells.cell(tmp_path, "transfer")
    problem = run.problem()
    pruned = METHODS["transfer"].prune(problem, run.runner)
    assert tiny.same(pruned.mask, cells.given(tiny.variables(), 0.5))
    assert tiny.same(pruned.weights, problem.source.weights)


@pytest.mark.parametrize(("stage", "prune", "retrain"), [("both", 1, 1), ("prune", 1, 0), ("retrain", 0, 1)])
def test_the_prompts_stage(stage, prune, retrain, tmp_path, monkeypatch):
    """The prompt is learned in the configured stages. If learned in one stage, the other has no such prompt."""
    first, run_to_best = [], Runner.run_to_best

    def watch(runner, name, made, state, epochs):
        # Before its arrays are donated.
        first.append(jax.device_get(state.learned["prompt"]))
        return run_to_best(runner, name, made, state, epochs)

    monkeypatch.setattr(Runner, "run_to_best", watch)
    run = cells.cell(tmp_path, "vpns", prompt__stage=stage)
    done = cells.finish(run)
    moved = [bool(np.any(np.asarray(x))) for x in jax.tree.leaves(done.pruned.prompt)]
    assert (len(moved), any(moved)) == ((4, True) if prune else (0, False))
    rows = {row["stage"]: row["val_prompted"] is not None for row in run.recorder.rows()}
    assert rows == {"prune": bool(prune), "retrain": bool(retrain)}
    # Where retraining begins.
    assert tiny.same(first, [{"both": done.pruned.prompt, "prune": {}, "retrain": run.network.prompt.init()}[stage]])
    if retrain:
        assert not tiny.same(done.best.prompt, first[0])
    else:
        assert done.best.prompt == {}


def test_a_prompt_after_pruning_changes_nothing_else(tmp_path):
    done = cells.finish(cells.cell(tmp_path, "magnitude+posthoc"))
    before, after = done.retrained, done.best
    for field in ("weights", "mask", "batch_stats", "mapping"):
        assert tiny.same(getattr(before, field), getattr(after, field))
    assert not tiny.same(after.prompt, done.run.network.prompt.init())
    assert list(done.result["forward_passes"].values()) == [STEPS, STEPS]
    assert done.result["optimizer_steps"] == {"retrain": STEPS, "posthoc": STEPS}
    # The plain accuracy equals that of the network without the prompt.
    plain = cells.finish(cells.cell(tmp_path, "magnitude"))
    assert done.result["test"]["best"]["plain"] == plain.result["test"]["best"]["plain"]
    assert done.result["test"]["best"]["prompted"] is not None


def test_in_the_reference_protocol_only_its_prompted_pass_fits_a_prompt_alone(tmp_path):
    run = cells.cell(tmp_path, "random+posthoc", protocol="reference")
    run.fit_prompt(run.prune())
    assert run.runner.optimizer_steps == {"posthoc": STEPS}


def test_with_a_new_head_it_is_never_pruned(tmp_path):
    done = cells.finish(cells.cell(tmp_path, "bip+prompt", mapping__kind="head"))
    assert set(done.pruned.mask) == {"conv1"}
    assert done.best.weights["head"]["bias"].shape == (tiny.CLASSES,)
    assert done.result["optimizer_steps"] == {"prune": 2 * STEPS, "retrain": STEPS}
    assert done.result["test"]["best"]["prompted"] is not None
    assert not tiny.same(done.best.prompt, done.run.network.prompt.init())


@pytest.mark.parametrize("name", ["vpn", "vpns+prompt", "dense+posthoc+prompt", "snip+", "+prompt", "snip+promp"])
def test_unknown_methods(name):
    with pytest.raises(UserError, match=r"unknown method .*vpns.*\+prompt or \+posthoc") as caught:
        method(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt__stage": "first"}, "'first'.*prune, retrain, both"),
        ({"prompt__stage": "prune", "methods": ("snip+prompt",)}, r"snip\+prompt learns nothing.*'retrain' and 'both'"),
        ({"scoring__batches": 0}, "scoring.batches is 0"),
        ({"scoring__temperature": 0.0}, "scoring.temperature is 0.0"),
        ({"synflow__rounds": 0}, "synflow.rounds is 0"),
        ({"imp__drop": 1.0}, "imp.drop is 1.0"),
        ({"imp__rewind_epochs": 1}, "imp.rewind_epochs is 1; with config.imp.epochs = 1 it allows 0 ... 0"),
        ({"bip__gamma": 0.0}, "bip.gamma is 0.0"),
        ({"bip__scores": cells.tree()["retrain"]["weights"] | {"optimizer": "lien"}}, "unknown optimizer 'lien'"),
    ],
)
def test_bad_configs(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        config.parse(cells.tree(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["snip", "fisher", "grasp", "imp"])
def test_a_mask_found_with_a_mapping_keeps_it(name, tmp_path):
    """Head rows outside of the mapping get no gradient and are pruned, so a new mapping must not be estimated."""
    run = cells.cell(tmp_path, name, density=0.15)
    problem = run.problem()
    pruned = METHODS[name].prune(problem, run.runner)
    assert tiny.same(pruned.mapping, problem.dense().mapping)
    # Estimated again on the sparse network, the mapping would differ.
    assert not tiny.same(pruned.mapping, problem.map_labels(pruned.mask))
    if name == "snip":
        outside = sorted(set(range(5)) - set(pruned.mapping.tolist()))
        assert not pruned.mask["head"]["kernel"][:, np.asarray(outside)].any()
