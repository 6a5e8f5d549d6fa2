"""Decides whether the sub-folders of a folder of images are splits or classes, and refuses unclear cases.

A split is recognized by its name, in any case and form (`Train`, `training_set`, `val`, `dev`, `Test-Images`). It is
an error if folders look like incomplete splits, or like parts of another kind of data set: otherwise they would
silently be used as classes.
"""

import collections
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from vpns_jax.data.text import composed, printable, some
from vpns_jax.errors import UserError

SPLITS = ("train", "val", "test")
WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
_ENDINGS = ("", "set", "data", "split", "images")
_KINDS = {word + ending: kind for kind, words in WORDS.items() for word in words for ending in _ENDINGS}
_STEMS = {word: kind for kind, words in WORDS.items() for word in words}
# Parts of data sets for segmentation or detection, and of archives.
_PARTS = frozenset(
    {"annotation", "annotations", "annots", "bboxes", "boxes", "data", "dataset", "groundtruth", "gt", "image"}
    | {
        "images",
        "img",
        "imgs",
        "jpegimages",
        "label",
        "labels",
        "mask",
        "masks",
        "metadata",
        "segmentation",
        "segmentations",
    }
)
_MEANT = (
    "a set has train/ and optionally val/ and test/, each with a sub-folder for each class; or such sub-folders alone"
)


def kind(name: str) -> str | None:
    """The split that a folder's name stands for, "train", "val" or "test"; None if it stands for no split."""
    return _KINDS.get(_plain(name))


def splits(
    root: Path, folders: Iterable[str], *, folders_in: Callable[[str], Iterable[str]], has_images: Callable[[str], bool]
) -> dict[str, str]:
    """Finds the splits among the sub-folders of a data set.

    Args:
      root: the folder, for errors.
      folders: the names of its sub-folders.
      folders_in: a function that returns the names of a sub-folder's own sub-folders.
      has_images: a function that returns whether there is an image at any depth below a sub-folder.

    Returns:
      Sub-folders by split, "train" included; empty if the sub-folders are classes.

    Raises:
      UserError: it is unclear whether the sub-folders are splits or classes.
    """
    folders = list(folders)
    named = {split: [name for name in folders if kind(name) == split] for split in SPLITS}
    for names in named.values():
        if len(names) > 1:
            raise UserError(f"{printable(str(root))} has both {' and '.join(map(printable, names))}; keep one")
    present = {split: names[0] for split, names in named.items() if names}
    others = [name for name in folders if kind(name) is None]
    if "train" not in present:
        if present:
            raise _unclear(root, f"{some(list(present.values()))}, and no train")
        _check_classes(root, others, folders_in)
    # "train" may also be the name of a class.
    elif len(present) == 1:
        beside = [name for name in others if _plain(name) not in _PARTS and has_images(name)]
        if len(beside) > 1:
            raise _unclear(root, f"{printable(present['train'])}, and beside it images in {some(beside)}")
    return present


def check_split(folder: Path, classes: Iterable[str]) -> None:
    """Checks that the sub-folders of a split are classes.

    Args:
      folder: the split's folder, for errors.
      classes: the names of its sub-folders.

    Raises:
      UserError: their names are those of splits, or of parts of another kind of data set.
    """
    classes = list(classes)
    if len(classes) > 1 and all(kind(name) or _plain(name) in _PARTS for name in classes):
        raise _unclear(folder, some(classes))


def _check_classes(root: Path, folders: list[str], folders_in: Callable[[str], Iterable[str]]) -> None:
    """Raises `UserError` if the sub-folders of a data set without splits do not look like classes."""
    check_split(root, folders)
    alike = {name: stem for name in folders if (stem := _stem(name))}
    if len(set(alike.values())) > 1 and 2 * len(alike) >= len(folders):
        raise _unclear(root, some(list(alike)))
    repeated = collections.Counter(
        composed(inner) for name in folders for inner in folders_in(name) if _plain(inner) not in _PARTS
    )
    often = [name for name, count in repeated.items() if count > 1 and 2 * count >= len(folders)]
    if often:
        raise _unclear(root, f"{some(folders, 2)}, with the same folders in them ({some(often, 2)})")


def _unclear(folder: Path, names: str) -> UserError:
    where = printable(str(folder))
    return UserError(f"{where}: classes or splits? Found {names}; {_MEANT} (if these are classes, put them in train/)")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.casefold())


def _stem(name: str) -> str | None:
    """The split that a word in the name stands for, as in `seg_train`, `cars_test` and `val2017`."""
    words = re.findall("[a-z]+", name.casefold())
    return next((_STEMS[word] for word in words if word in _STEMS), None)
