"""Every pruner on channels: exactly as many as the density says, and gone for all that follows, whatever comes in."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.pruners import cells
from tests.pruners.test_granularity import SPARSE
from tests.training import tiny
from vpns_jax import models, sparsity
from vpns_jax.errors import UserError
from vpns_jax.experiment import config, pruning
from vpns_jax.pruners import METHODS
from vpns_jax.pruners.any_model import mean_gradient
from vpns_jax.pruners.methods import scoring
from vpns_jax.pruners.methods.given_mask import check
from vpns_jax.training.network import predict

pytestmark = pytest.mark.slow


def kept(mask):
    """Which of the four channels are; fails if one is kept in part."""
    assert set(mask) == {"conv1", "bn1"}
    keep = np.asarray(mask["bn1"]["scale"])
    assert np.array_equal(mask["bn1"]["bias"], keep)
    assert np.array_equal(mask["conv1"]["kernel"], np.broadcast_to(keep, (2, 2, 3, 4)))
    return keep


@pytest.mark.parametrize("name", SPARSE)
def test_half_of_the_channels_are_kept_whole(name, tmp_path):
    run = cells.cell(tmp_path, name, density=0.5, granularity="channel")
    assert kept(METHODS[name].prune(run.problem(), run.runner).mask).sum() == 2


@functools.partial(jax.jit, static_argnames="train")
def normalised(variables, images, *, train):
    """What the normalization gives."""
    _, seen = tiny.Tiny().apply(
        variables, images, train=train, mutable=["batch_stats", "intermediates"], capture_intermediates=True
    )
    return seen["intermediates"]["bn1"]["__call__"][0]


@pytest.mark.parametrize("name", ["hydra_layerwise", "bip"])
def test_a_pruned_channel_stays_zero_through_retraining(name, tmp_path):
    """Neither momentum, nor weight decay, nor running statistics bring it back, nor does a bias stay behind."""
    run = cells.cell(tmp_path, name, density=0.5, granularity="channel", retrain__epochs=3)
    done = cells.finish(run)
    keep = kept(done.best.mask)
    assert keep.sum() == 2
    # Statistics moved.
    before = run.problem().source.batch_stats["bn1"]["mean"]
    assert not np.array_equal(before, done.best.batch_stats["bn1"]["mean"])
    variables = {"params": sparsity.apply(done.best.weights, done.best.mask), "batch_stats": done.best.batch_stats}
    images = 10 * np.random.default_rng(3).standard_normal((5, tiny.SIZE, tiny.SIZE, 3), np.float32)
    for train in (False, True):
        out = np.asarray(normalised(variables, images, train=train))
        assert not out[..., ~keep].any()
        assert out[..., keep].any()
    # What reads it may hold anything: the network as it is run does not see it.
    head = done.best.weights[models.HEAD]
    scrambled = {**head, "kernel": jnp.where(keep[:, None], head["kernel"], 1e6)}
    other = dataclasses.replace(done.best, weights={**done.best.weights, models.HEAD: scrambled})
    shown = tiny.split(seed=5).images
    first, second = (
        predict(run.network, which, shown, prompted=run.plan.method.prompted) for which in (done.best, other)
    )
    np.testing.assert_array_equal(first, second)


def test_a_cell_reports_kernels(tmp_path):
    done = cells.finish(cells.cell(tmp_path, "hydra_layerwise", density=0.5, granularity="channel"))
    assert done.result["achieved_density"] == 0.5
    assert done.result["layers"] == [{"path": "conv1/kernel", "size": 48, "kept": 24}]
    assert {row["density"] for row in done.run.recorder.rows()} == {0.5}


def test_scores_are_learned_behind_the_normalisation(tmp_path):
    """They move, and unequally; they started evenly spaced, in the order of the channels' mean |w|."""
    run = cells.cell(tmp_path, "vpns", density=0.5, granularity="channel")
    problem, seen = run.problem(), {}
    first = problem.first_scores()["conv1"]["kernel"]
    assert first.shape == (4,)
    sizes = np.abs(np.asarray(problem.source.weights["conv1"]["kernel"])).mean((0, 1, 2))
    np.testing.assert_allclose(np.sort(first / first.sum()), [1 / 16, 3 / 16, 5 / 16, 7 / 16], rtol=1e-5)
    assert np.array_equal(np.argsort(first), np.argsort(sizes))
    train = type(run.runner).run

    def watch(self, *arguments, **named):
        seen["state"] = train(self, *arguments, **named)
        return seen["state"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(run.runner), "run", watch)
        METHODS["vpns"].prune(problem, run.runner)
    moved = np.asarray(seen["state"].learned["scores"]["conv1"]["kernel"] - first)
    assert (moved != 0).all()
    assert np.ptp(moved) > 0


def test_snip_is_how_the_loss_changes_with_a_gate(tmp_path):
    """|gamma dL/dgamma + beta dL/dbeta|, which is Taylor's a g of the channel's output."""
    run = cells.cell(tmp_path, "snip", granularity="channel", prune__batch_norm="frozen", scoring__batches=2)
    problem = run.problem()
    source = problem.dense()
    on = list(scoring.task_batches(problem, source, temperature=1.0))
    gradient = mean_gradient(scoring.task_loss(problem), source.weights, problem.scored, on, problem.pattern)

    def loss(norm):
        return jnp.mean(jnp.stack([scoring.task_loss(problem)({**source.weights, "bn1": norm}, batch) for batch in on]))

    norm = source.weights["bn1"]
    by_norm = jax.jit(jax.grad(loss))(norm)
    expected = norm["scale"] * by_norm["scale"] + norm["bias"] * by_norm["bias"]
    np.testing.assert_allclose(gradient["conv1"]["kernel"], expected, rtol=1e-4, atol=1e-7)
    keep = kept(METHODS["snip"].prune(problem, run.runner).mask)
    assert np.abs(expected)[keep].min() >= np.abs(expected)[~keep].max()


# "bip" learns its mask with the function of "vpns".
@pytest.mark.parametrize("name", [name for name in SPARSE if not METHODS[name].layerwise and name != "bip"])
def test_every_method_that_scores_keeps_to_a_target(name, tmp_path):
    """A channel has 16 x 12 multiply-adds and is read by 5: two of four are the most that 60% of all 788 allow."""
    changes = {"granularity": "channel", "target": "macs:0.6", "densities": (0.1,)}
    run = cells.cell(tmp_path, name, density=0.6, **changes)
    assert kept(METHODS[name].prune(run.problem(), run.runner).mask).sum() == 2


def test_a_cell_says_what_its_target_came_to(tmp_path):
    changes = {"granularity": "channel", "target": "params:0.8"}
    done = cells.finish(cells.cell(tmp_path, "magnitude", density=0.8, **changes))
    # A channel has 12 weights, scale and bias, and 5 weights that read it; the head's bias has 5.
    assert done.result["shrunk"]["parameters"] == {"dense": 4 * 19 + 5, "shrunk": 3 * 19 + 5}
    assert done.result["shrunk"]["multiply_adds"] == {"dense": 788, "shrunk": 591}
    assert done.result["notes"][0] == (
        "target params:0.8: without its pruned channels the network has 76.54% of the dense parameters"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "macs"}, "target is 'macs'; it allows macs:SHARE or params:SHARE"),
        ({"target": "macs:1.0"}, "with a share in .0, 1."),
        ({"target": "flops:0.5"}, "target is 'flops:0.5'"),
        (
            {"target": "macs:0.5", "granularity": "weight"},
            "needs config.granularity channel",
        ),
        ({"target": "macs:0.5", "allocation": "erk"}, "found channel and erk"),
        ({"target": "macs:0.5", "methods": ("hydra_layerwise",)}, "hydra_layerwise has none"),
        ({"target": "macs:0.5", "methods": ("transfer",), "transfer__mask": "a.safetensors"}, "transfer has none"),
    ],
)
def test_targets_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        config.parse(cells.tree(**{"granularity": "channel"} | changes))
    assert "\n" not in str(caught.value)


def test_a_target_takes_the_place_of_densities():
    assert config.parse(cells.tree(granularity="channel", target="macs:0.3")).densities == (0.3,)
    found = config.parse(cells.tree(granularity="channel", target="macs:0.1"))
    with pytest.raises(UserError, match=r"macs:0.1 cannot be reached: with one channel left .* 0.25 of the dense"):
        pruning.check(found, tiny.Tiny(), tiny.variables())


def test_the_head_stays_dense_unless_it_is_all_there_is():
    found = config.parse(cells.tree(granularity="channel"))
    weights = tiny.variables()["params"]
    assert set(pruning.prunable(found, weights)) == {"conv1"}
    alone = config.parse(cells.tree(granularity="channel", model__prune_include=("head",)))
    with pytest.raises(UserError, match="nothing to prune: of head/kernel, its output channels are the classes"):
        pruning.check(alone, tiny.Tiny(), tiny.variables())


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ([True, False, True, True], r"keeps 3 of 4 channels.* which keeps 2"),
        (None, "does not keep whole groups of granularity channel"),
    ],
)
def test_a_given_mask_is_of_whole_channels(keep, message):
    weights = tiny.variables()["params"]
    pattern = sparsity.ChannelPattern(channels=models.channels(tiny.Tiny()))
    vector = jnp.array(keep or [True, False, True, False])
    mask = pattern.mask({"conv1": {"kernel": vector}}, weights)
    found = {"name": "a.safetensors", "weights": weights, "pattern": pattern}
    if keep is None:
        check(mask, {"conv1": weights["conv1"]}, 0.5, **found)
        mask["bn1"]["bias"] = ~mask["bn1"]["bias"]
    with pytest.raises(UserError, match=message):
        check(mask, {"conv1": weights["conv1"]}, 0.5, **found)
