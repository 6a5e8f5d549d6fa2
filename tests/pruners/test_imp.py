"""Iterative magnitude pruning: its counts, its rewinding, and that a killed run ends like an uninterrupted one."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pruners import cells
from tests.training import tiny
from tests.training.test_runner import StoppedError, StoppingRecorder, streamed
from vpns_jax import sparsity
from vpns_jax.experiment import cell as experiment_cell
from vpns_jax.pruners.methods import imp

pytestmark = pytest.mark.slow

N = 68


def test_the_schedule_by_hand():
    assert imp.schedule(0.5, 0.2) == pytest.approx((0.8, 0.64, 0.512, 0.5))
    assert imp.schedule(0.25, 0.5) == (0.5, 0.25)
    assert imp.schedule(1.0, 0.2) == (1.0,)


@pytest.mark.parametrize(("density", "expected"), [(1.0, 1), (0.9, 1), (0.8, 1), (0.64, 2), (0.63, 3), (0.512, 3)])
def test_as_many_rounds_as_it_takes(density, expected):
    assert imp.rounds(density, 0.2) == expected


@given(st.floats(0.01, 1), st.floats(0.05, 0.9))
def test_schedules_fall_to_the_target(density, drop):
    densities = imp.schedule(density, drop)
    assert list(densities) == sorted(densities, reverse=True)
    assert densities[-1] == density
    assert len(densities) == imp.rounds(density, drop)
    for before, after in itertools.pairwise(densities[:-1]):
        assert after == pytest.approx((1 - drop) * before)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 30), st.integers(0, 29))
def test_what_is_dropped_stays_dropped(seed, first, second):
    rng = np.random.default_rng(seed)
    # Many zeros and ties: weights that are already pruned come first here, too.
    scores = {"a": jnp.asarray(rng.integers(-2, 3, 10), jnp.float32), "b": jnp.asarray(rng.normal(0, 1, (4, 5)))}
    mask = sparsity.prune_smallest({"a": -scores["a"], "b": scores["b"] + 1}, min(first, second))
    after = sparsity.Pattern().select_further(scores, mask, second)
    gone = sum(int((~leaf).sum()) for leaf in jax.tree.leaves(after))
    assert gone == second
    assert all(bool((was | ~now).all()) for was, now in zip(*map(jax.tree.leaves, (mask, after)), strict=True))


@pytest.fixture
def watched(monkeypatch):
    """Records the arguments and results of `drop_smallest`."""
    seen = []
    drop = imp.drop_smallest

    def watch(problem, trained, *rest):
        mask = drop(problem, trained, *rest)
        seen.append((trained, sum(int((~leaf).sum()) for leaf in jax.tree.leaves(mask)), mask))
        return mask

    monkeypatch.setattr(imp, "drop_smallest", watch)
    return seen


def test_rounds_start_at_the_start_and_drop_the_smallest_trained_weights(tmp_path, watched):
    run = cells.cell(tmp_path, "imp", density=0.4)
    pruned = run.prune()
    problem = run.problem()
    # The shares 0.8, 0.64, 0.512, 0.4096 and 0.4 of 68 weights are left.
    assert [count for _, count, _ in watched] == [13, 24, 33, 40, 40]
    # Everything but the mask is rewound: it equals the pretrained network bit for bit, also the batch statistics.
    assert tiny.same(pruned.weights, problem.source.weights)
    assert tiny.same(pruned.batch_stats, problem.source.batch_stats)
    before = jax.tree.map(lambda w: jnp.ones(w.shape, bool), problem.prunable)
    for trained, count, mask in watched:
        assert tiny.same(trained.mask, before)
        assert not tiny.same(trained.weights, problem.source.weights)
        weights = sparsity.apply(sparsity.subtree(trained.weights, before), before)
        assert tiny.same(mask, sparsity.prune_smallest(weights, count))
        before = mask
    # Rounds see different batches, so their weights differ even if nothing is pruned.
    rows = run.recorder.rows()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in rows] == [3, 6, 9, 12, 15]
    # A row has the density of its training.
    np.testing.assert_allclose([row["density"] for row in rows], 1 - np.asarray([0, 13, 24, 33, 40]) / N, rtol=1e-6)


def test_rewinding_to_an_early_epoch(tmp_path):
    run, again = (cells.cell(tmp_path, "imp", density=0.7, imp__epochs=2, imp__rewind_epochs=1) for _ in range(2))
    problem = run.problem()
    pruned = imp.prune(problem, run.runner)
    # It is restored, not trained again.
    early = imp.rewind_point(problem, again.runner, problem.retrain)
    assert tiny.same(pruned.weights, early.weights)
    assert tiny.same(pruned.batch_stats, early.batch_stats)
    assert not tiny.same(early.weights, problem.source.weights)
    assert [row["epoch"] for row in run.recorder.rows()] == [1, 2, 3, 4, 5]
    # The first epoch of dense training equals the first epoch of a round that rewinds to the start.
    whole = cells.cell(tmp_path / "whole", "imp", density=0.7, imp__epochs=2)
    whole.prune()
    assert whole.recorder.rows()[0]["loss"] == run.recorder.rows()[0]["loss"]


def killed_and_resumed(folder, stops, train):
    """Runs a cell of three rounds of two epochs, stops it after each epoch in turn, and finishes it."""
    changes = {"density": 0.6, "imp__epochs": 2, "checkpoint_every_epochs": 2, "checkpoint_every_steps": 2}
    changes |= {"train": train}
    for stop in stops:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(experiment_cell, "Recorder", StoppingRecorder)
            run = cells.cell(folder, "imp", **changes)
        run.recorder.stop_after = stop
        with pytest.raises(StoppedError):
            run.prune()
        run.recorder.close()
    run = cells.cell(folder, "imp", **changes)
    done = cells.finish(run)
    times = {"seconds", "compile_seconds"}
    rows = [{key: value for key, value in row.items() if key not in times} for row in run.recorder.rows()]
    return done, rows, {key: value for key, value in done.result.items() if key not in times}


@pytest.mark.parametrize("data", [tiny.split, lambda: streamed(tiny.split())], ids=["resident", "streamed"])
def test_killed_and_resumed_bit_for_bit(tmp_path, data):
    train = data()
    unbroken, rows, result = killed_and_resumed(tmp_path / "unbroken", (), train)
    # Within a round, at the end of a round before its checkpoint, and at the start of the next round.
    again, rows_again, result_again = killed_and_resumed(tmp_path / "killed", (1, 2, 3, 5), train)
    assert len(rows) == 7
    assert tiny.same(again.best, unbroken.best)
    assert rows_again == rows
    assert result_again == result


@pytest.mark.parametrize(
    ("scores", "notes"),
    [
        # What an earlier round pruned has the largest score of all, since it was rewound; nothing ties with it.
        ([5.0, 1.0, 2.0, 3.0], 0),
        ([5.0, 2.0, 2.0, 2.0], 1),
    ],
)
def test_what_an_earlier_round_pruned_does_not_tie(tmp_path, scores, notes):
    run = cells.cell(tmp_path, "imp")
    problem = dataclasses.replace(run.problem(), prunable={"a": jnp.ones((1, 4))})
    mask = {"a": jnp.asarray([[False, True, True, True]])}
    kept = problem.keep_fewer({"a": jnp.asarray([scores])}, mask, 0.5, run.runner)
    assert kept["a"].tolist() == [[False, False, True, True]]
    assert len(run.runner.notes) == notes
