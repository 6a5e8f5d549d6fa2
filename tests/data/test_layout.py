"""Sub-folders as splits or classes. An earlier version read all these folders with wrong classes."""

import pytest

from vpns_jax.data import layout, listing
from vpns_jax.errors import UserError


def make(root, *paths: str) -> None:
    """Makes empty files; the images' contents do not matter here."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def sets(*folders: str) -> list[str]:
    """An image of a cat and one of a dog in each of the folders."""
    return [f"{folder}/{name}/{k}.png" for k, folder in enumerate(folders) for name in ("cat", "dog")]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Train", "Valid", "Test"),
        ("TRAINING", "VALIDATION", "TESTING"),
        ("training_set", "validation_set", "test_set"),
        ("trn", "dev", "tst"),
        ("train-images", "Val Images", "TestData"),
        ("trainset", "devset", "testset"),
    ],
)
def test_splits_are_told_in_any_case_and_form(tmp_path, train, val, test):
    make(tmp_path, *sets(train, val, test))
    listed = listing.list_folder(tmp_path)
    assert listed.classes == ("cat", "dog")
    assert listed.files == {
        split: ((f"{folder}/cat/{k}.png", 0), (f"{folder}/dog/{k}.png", 1))
        for k, (split, folder) in enumerate((("train", train), ("val", val), ("test", test)))
    }
    assert listed.skipped == ()


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (sets("test", "val"), "val, test, and no train"),
        (sets("Test", "cars"), "Test"),
        (["validation/1.png", "cat/1.png", "dog/1.png"], "validation"),
        # Segmentation and detection.
        (["images/1.png", "masks/1.png"], "images, masks"),
        (["JPEGImages/1.jpg", "Annotations/1.xml"], "Annotations, JPEGImages"),
        (["images/train/1.png", "images/val/2.png", "labels/train/1.txt"], "images, labels"),
        (["train/images/1.png", "train/masks/1.png"], "images, masks"),
        (["train/test/cat/1.png", "train/train/cat/2.png"], "test, train"),
        # Splits by other names.
        (sets("seg_train", "seg_test", "seg_pred"), "seg_test, seg_train"),
        (["cars_train/1.png", "cars_test/1.png", "devkit/x.mat"], "cars_test, cars_train"),
        (["train2017/1.png", "val2017/1.png"], "train2017"),
        (sets("fold1", "fold2", "fold3"), "fold1, fold2 and 1 more, with the same folders in them (cat, dog)"),
        (["a/cat/1.png", "a/dog/1.png", "b/cat/1.png"], "a, b, with the same folders in them (cat)"),
        # A class named train.
        (["train/1.png", "car/1.png", "plane/1.png"], "train, and beside it images in car, plane"),
    ],
)
def test_what_may_be_splits_or_classes_is_an_error(tmp_path, paths, names):
    make(tmp_path, *paths)
    with pytest.raises(UserError) as caught:
        listing.list_folder(tmp_path)
    message = str(caught.value)
    assert f"classes or splits? Found {names}" in message
    assert "a set has train/ and optionally val/ and test/, each with a sub-folder for each class" in message
    assert "put them in train/" in message
    assert len(message) - len(str(tmp_path)) < 340
    assert "\n" not in message


@pytest.mark.parametrize(
    ("paths", "classes"),
    [
        # As Tiny-ImageNet has them.
        (["n01/images/1.png", "n02/images/1.png"], ("n01", "n02")),
        (["cat/indoor/1.png", "dog/outdoor/1.png"], ("cat", "dog")),
        (
            ["bullet train/1.png", "test tube/1.png", *(f"{k}/1.png" for k in range(9))],
            (*"012345678", "bullet train", "test tube"),
        ),
        (["masks/1.png", "faces/1.png"], ("faces", "masks")),
        # The remedy in the error: all folders in train are classes.
        (["train/train/1.png", "train/car/1.png"], ("car", "train")),
        (["train/cat/2019/1.png", "train/dog/2019/1.png"], ("cat", "dog")),
    ],
)
def test_classes_that_are_none_of_that(tmp_path, paths, classes):
    make(tmp_path, *paths)
    listed = listing.list_folder(tmp_path)
    assert listed.classes == classes
    assert len(listed.files["train"]) == len(paths)


def test_what_lies_beside_splits_is_told(tmp_path):
    make(tmp_path, *sets("train", "test", "unlabeled"), "docs/licence.txt", "README.md", "train/stray.png", "stray.jpg")
    assert listing.list_folder(tmp_path).skipped == (
        "skipped 2 folders that are no split: docs, unlabeled",
        "skipped 2 images outside any class: stray.jpg, train/stray.png",
        "skipped 1 files of other kinds (.md 1): README.md",
    )


def test_images_without_labels_are_an_error(tmp_path):
    make(tmp_path, *sets("train"), "test/1.png", "test/2.png")
    with pytest.raises(UserError, match="test has 2 images and no sub-folder for any class, so they have no labels"):
        listing.list_folder(tmp_path)


def test_one_folder_too_high_says_what_was_found(tmp_path):
    make(tmp_path, *sets("archive/train", "archive/test"))
    with pytest.raises(UserError, match=r"for each class, at least 2; found 1 \(archive\)"):
        listing.list_folder(tmp_path)


def test_every_word_is_a_split_of_one_kind():
    words = [word for kind in layout.SPLITS for word in layout.WORDS[kind]]
    assert len(words) == len(set(words))
    assert {kind: layout.kind(kind.upper()) for kind in layout.SPLITS} == {kind: kind for kind in layout.SPLITS}
    assert layout.kind("trains") is layout.kind("latest") is layout.kind("device") is None
