"""Splits held out by class, and sources made in memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpns_jax.data import Split, TrainSplit
from vpns_jax.data.materialize import materialize, resize
from vpns_jax.data.source import ArraySource, Original, stratified_holdout, with_validation
from vpns_jax.errors import UserError


def test_holdout_by_hand():
    # 10, 5, 2 and 1 images; a quarter: 2.5 -> 3, 1.25 -> 1, 0.5 -> 1, and the only image stays.
    labels = np.repeat([0, 1, 2, 3], [10, 5, 2, 1])
    kept, held = stratified_holdout(labels, 0.25, seed=0)
    np.testing.assert_array_equal(np.bincount(labels[held], minlength=4), [3, 1, 1, 0])
    np.testing.assert_array_equal(np.bincount(labels[kept]), [7, 4, 1, 1])


@settings(deadline=None)
@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=80),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_holdout_is_a_stratified_partition(labels, fraction, seed):
    labels = np.array(labels)
    kept, held = stratified_holdout(labels, fraction, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(labels)))
    for label in np.unique(labels):
        members, out = (labels == label).sum(), (labels[held] == label).sum()
        assert out < members
        assert members == 1 or abs(out - fraction * members) <= 0.5 or out in (1, members - 1)
    again = stratified_holdout(labels, fraction, seed=seed)
    np.testing.assert_array_equal(held, again[1])


def test_holdout_depends_on_the_seed_and_class_by_class():
    labels = np.repeat([0, 1], 50)
    _, held = stratified_holdout(labels, 0.2, seed=0)
    _, other = stratified_holdout(labels, 0.2, seed=1)
    assert set(held) != set(other)
    # More images of another class do not change this class's split.
    _, more = stratified_holdout(np.repeat([0, 1], [50, 70]), 0.2, seed=0)
    np.testing.assert_array_equal(held[held < 50], more[more < 50])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_holdout_refuses_a_fraction_that_leaves_nothing(fraction):
    with pytest.raises(UserError, match="val_fraction"):
        stratified_holdout(np.zeros(4, int), fraction, seed=0)


def stripes(n: int, first: int = 0, h: int = 4, w: int = 6, c: int = 3) -> ArraySource:
    """n images whose pixels hold their number, of two alternating classes."""
    number = np.arange(first, first + n)
    images = np.broadcast_to(number[:, None, None, None], (n, h, w, c)).astype(np.uint8)
    return ArraySource(images, (number % 2).astype(np.int32))


def test_validation_is_disjoint_from_train_and_test_is_untouched():
    test = stripes(6, first=100)
    sources = with_validation(Original(("even", "odd"), True, stripes(20), test), "stripes", val_fraction=0.2, seed=3)
    train, val = ({int(s[i][0][0, 0, 0]) for i in range(len(s))} for s in (sources.train, sources.val))
    assert train | val == set(range(20))
    assert not train & val
    assert sources.test is test
    np.testing.assert_array_equal(np.bincount(sources.val.labels), [2, 2])


def test_a_validation_split_of_its_own_is_kept():
    val = stripes(4, first=50)
    original = Original(("even", "odd"), True, stripes(20), stripes(6), val)
    sources = with_validation(original, "stripes", val_fraction=0.5, seed=3)
    assert sources.val is val
    assert len(sources.train) == 20


def test_materialize_keeps_images_with_their_labels_at_two_sizes():
    original = Original(("even", "odd"), True, stripes(20), stripes(6, first=100))
    dataset = materialize(with_validation(original, "stripes", val_fraction=0.2, seed=3), image_size=16)
    assert dataset.num_classes == 2
    assert dataset.train.images.shape == (16, 16, 16, 3)
    assert dataset.train.large.shape == (16, 18, 18, 3)
    assert dataset.val.images.shape == (4, 16, 16, 3)
    for split in (dataset.train, dataset.val, dataset.test):
        np.testing.assert_array_equal(split.images[:, 0, 0, 0] % 2, split.labels)
    np.testing.assert_array_equal(dataset.train.images[:, 0, 0], dataset.train.large[:, 0, 0])


def test_resize_by_hand():
    # Halving averages each pair over a triangle of weights 1/8 3/8 3/8 1/8, cut off and normalized at the border:
    # (3*0 + 3*0 + 255) / 7 = 36 and (0 + 3*255 + 3*255) / 7 = 219.
    image = np.array([0, 0, 255, 255], np.uint8)[None, :, None].repeat(4, 0)
    np.testing.assert_array_equal(resize(image, 2)[..., 0], [[36, 219], [36, 219]])
    assert resize(np.zeros((3, 5, 3), np.uint8), 4).shape == (4, 4, 3)


def test_splits_check_their_arrays():
    images, labels = np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int32)
    with pytest.raises(ValueError, match="float32"):
        Split(images.astype(np.float32), labels)
    with pytest.raises(ValueError, match="int64"):
        Split(images, labels.astype(np.int64))
    with pytest.raises(ValueError, match=r"large must be uint8 \[2"):
        TrainSplit(images, labels, images[:1])
