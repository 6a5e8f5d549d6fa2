"""Which images of a stream make up which batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpns_jax.data.plan import EvalPlan, TrainPlan
from vpns_jax.errors import UserError


@settings(deadline=None)
@given(images=st.integers(1, 60), batch_size=st.integers(1, 60), epoch=st.integers(0, 3), shuffles=st.integers(1, 2))
def test_every_epoch_is_a_permutation_less_its_remainder(images, batch_size, epoch, shuffles):
    if batch_size > images:
        with pytest.raises(UserError, match=f"{images} images allows 1 to {images}"):
            TrainPlan(images, batch_size, shuffles, seed=0)
        return
    plan = TrainPlan(images, batch_size, shuffles, seed=0)
    assert plan.steps_per_epoch == images // batch_size
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    for shuffle in range(shuffles):
        seen = np.concatenate([plan.indices(step)[shuffle] for step in steps])
        assert len(seen) == images // batch_size * batch_size
        assert len(np.unique(seen)) == len(seen)
        assert seen.min() >= 0
        assert seen.max() < images


def test_shuffles_epochs_and_seeds_are_independent():
    def epoch(plan: TrainPlan, shuffle: int, number: int) -> tuple[int, ...]:
        steps = range(number * plan.steps_per_epoch, (number + 1) * plan.steps_per_epoch)
        return tuple(np.concatenate([plan.indices(step)[shuffle] for step in steps]).tolist())

    plan = TrainPlan(100, 10, 2, seed=0)
    orders = {epoch(plan, shuffle, number) for shuffle in (0, 1) for number in (0, 1)}
    orders.add(epoch(TrainPlan(100, 10, 2, seed=1), 0, 0))
    assert len(orders) == 5
    # A second shuffle does not change the first one: both protocols see the same first order.
    assert epoch(plan, 0, 1) == epoch(TrainPlan(100, 10, 1, seed=0), 0, 1)
    # Two shuffles rarely agree on a place: one in a hundred by chance.
    assert np.mean(np.array(epoch(plan, 0, 0)) == np.array(epoch(plan, 1, 0))) < 0.1


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_same_batches(processes):
    whole = TrainPlan(50, 8, 2, seed=3)
    shares = [TrainPlan(50, 8, 2, seed=3, process=p, processes=processes) for p in range(processes)]
    for step in (0, 5, 6, 20):
        for shuffle in (0, 1):
            joined = np.concatenate([plan.indices(step)[shuffle] for plan in shares])
            np.testing.assert_array_equal(joined, whole.indices(step)[shuffle])


def test_a_batch_must_divide_among_processes():
    for make in (lambda: TrainPlan(50, 9, 1, seed=0, processes=2), lambda: EvalPlan(50, 9, processes=2)):
        with pytest.raises(UserError, match="batch_size is 9; 2 processes allow multiples of 2"):
            make()


def test_evaluation_by_hand():
    plans = [EvalPlan(5, 4, process=p, processes=2) for p in (0, 1)]
    assert [plan.steps for plan in plans] == [2, 2]
    batches = [[part.tolist() for part in plan.indices(step)] for plan in plans for step in (0, 1)]
    assert batches == [[[0, 1], [1, 1]], [[4, 4], [1, 0]], [[2, 3], [1, 1]], [[4, 4], [0, 0]]]


@given(images=st.integers(1, 60), batch_size=st.integers(1, 60))
def test_evaluation_sees_every_image_once(images, batch_size):
    plan = EvalPlan(images, batch_size)
    pairs = [plan.indices(step) for step in range(plan.steps)]
    seen = np.concatenate([indices[weights == 1] for indices, weights in pairs])
    np.testing.assert_array_equal(seen, np.arange(images))
    assert all(len(indices) == len(weights) == batch_size for indices, weights in pairs)
