"""Every pruner with structured masks: it prunes whole groups, exactly as many as the density says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.pruners import cells
from tests.training import tiny
from vpns_jax import sparsity
from vpns_jax.errors import UserError
from vpns_jax.experiment import config
from vpns_jax.pruners import METHODS

pytestmark = pytest.mark.slow

# All methods except the one with a given mask, and "hydra", which is "vpns" without a prompt.
SPARSE = [name for name, method in METHODS.items() if method.sparse and not method.given and name != "hydra"]
# The convolution of the tiny network has 3 x 4 kernels of 2 x 2 weights; its head has none.
KERNELS = {"granularity": "kernel", "model__prune_include": ("conv1",)}


# One of each way to find a mask: scored once, in rounds, by magnitude between trainings, and learned.
@pytest.mark.parametrize("name", ["snip", "synflow", "imp", "bip"])
def test_whole_kernels_are_kept(name, tmp_path):
    run = cells.cell(tmp_path, name, density=0.25, **KERNELS)
    problem = run.problem()
    mask = METHODS[name].prune(problem, run.runner).mask
    assert set(mask) == {"conv1"}
    keep = np.asarray(mask["conv1"]["kernel"])
    assert np.array_equal(keep, np.broadcast_to(keep[:1, :1], keep.shape))
    # Of 12 kernels int(0.75 * 12) are pruned.
    assert keep[0, 0].sum() == 3


@pytest.mark.parametrize("name", ["random", "magnitude", "grasp", "vpns"])
def test_of_every_two_inputs_one_is_kept(name, tmp_path):
    changes = {"granularity": "1:2", "model__prune_include": ("head",)}
    run = cells.cell(tmp_path, name, density=0.5, **changes)
    problem = run.problem()
    keep = np.asarray(METHODS[name].prune(problem, run.runner).mask["head"]["kernel"])
    assert keep.shape == (4, 5)
    assert (keep.reshape(2, 2, 5).sum(axis=1) == 1).all()


@pytest.mark.parametrize("name", ["magnitude", "vpns", "imp"])
def test_each_layer_by_itself(name, tmp_path):
    run = cells.cell(tmp_path, name, density=0.5, allocation="erk")
    problem = run.problem()
    mask = METHODS[name].prune(problem, run.runner).mask
    # 0.5 * 68 = e (2 + 2 + 3 + 4 + 4 + 5) weights gives e = 1.7: 18.7 of 48 and 15.3 of 20 weights, rounded.
    assert int(mask["conv1"]["kernel"].sum()) == 48 - int(48 - 18.7)
    assert int(mask["head"]["kernel"].sum()) == 20 - int(20 - 15.3)


def test_grasp_ranks_groups_by_the_sum_of_their_weights_scores(tmp_path):
    """To first order, removing a group changes gradient flow by the sum over its weights, including the sign."""
    name, weight = "grasp", {"model__prune_include": ("conv1",)}
    run = cells.cell(tmp_path, name, **weight)
    problem = run.problem()
    kept = []
    keep = type(problem).keep

    def watch(self, scores, *, signed=False, **rest):
        kept.append((scores, signed))
        return keep(self, scores, signed=signed, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(problem), "keep", watch)
        METHODS[name].prune(problem, run.runner)
    ((scores, signed),) = kept
    assert signed
    grouped = dataclasses.replace(problem, pattern=sparsity.Pattern(sparsity.parse_granularity("kernel")))
    mask = np.asarray(METHODS[name].prune(grouped, run.runner).mask["conv1"]["kernel"])[0, 0]
    sums = np.asarray(scores["conv1"]["kernel"]).sum(axis=(0, 1))
    assert sums[mask].min() > sums[~mask].max()
    # By magnitude other groups would be pruned.
    sizes = np.abs(np.asarray(scores["conv1"]["kernel"])).sum(axis=(0, 1))
    assert not sizes[mask].min() > sizes[~mask].max()


def test_learned_scores_of_groups_start_equally_large_in_all_layers(tmp_path):
    def means(grain):
        run = cells.cell(tmp_path / grain, "vpns", granularity=grain)
        problem = run.problem()
        return [float(jnp.abs(leaf).mean()) for leaf in jax.tree.leaves(problem.first_scores())]

    first, second = means("input_channel")
    assert first == pytest.approx(second, rel=1e-5)
    # For single weights the paper's own initial scores are used.
    first, second = means("weight")
    assert abs(first / second - 1) > 0.1


def test_a_cell_from_start_to_end_reports_weights(tmp_path):
    run = cells.cell(tmp_path, "bip", density=0.25, **KERNELS)
    done = cells.finish(run)
    assert done.result["achieved_density"] == pytest.approx(3 / 12)
    (layer,) = done.result["layers"]
    assert (layer["path"], layer["size"], layer["kept"]) == ("conv1/kernel", 48, 12)
    # The scores changed, and the mask still keeps or prunes whole groups.
    assert all(tiny.same(leaf, leaf[:1, :1] & np.ones_like(leaf)) for leaf in jax.tree.leaves(done.best.mask))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"granularity": "filter"}, "unknown granularity 'filter'; known: weight, kernel, channel"),
        ({"granularity": "4:2"}, "'4:2' keeps 4 of every 2 weights"),
        ({"allocation": "even"}, "unknown allocation 'even'; known: global, uniform, erk"),
        ({"granularity": "2:4", "methods": ("vpns", "imp")}, "2:4 has one density, and imp gets there by others"),
        ({"granularity": "2:4", "methods": ("synflow+prompt",)}, "and synflow\\+prompt gets there by others"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        config.parse(cells.tree(**changes))
