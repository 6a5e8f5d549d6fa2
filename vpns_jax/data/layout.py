"""Which sub-folders of a folder of images are splits and which are classes, and the refusal to guess.

A split is told by its name, in any case and form (`Train`, `training_set`, `val`, `dev`, `Test-Images`). What looks
like splits, or like the parts of another kind of data set, and is not complete, is an error: read as classes it would
be trained on without a word.
"""

import collections
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from vpns_jax.data.text import printable, some
from vpns_jax.errors import UserError

SPLITS = ("train", "val", "test")
_WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
_ENDINGS = ("", "set", "data", "split", "images")
_KINDS = {word + ending: kind for kind, words in _WORDS.items() for word in words for ending in _ENDINGS}
_STEMS = {word: kind for kind, words in _WORDS.items() for word in words}
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
    "a set has train/ and, where there are, val/ and test/, in each a sub-folder for each class; or such folders alone"
)


def kind(name: str) -> str | None:
    """The split that a folder of this name is: "train", "val", "test", or None."""
    return _KINDS.get(_plain(name))


def splits(
    root: Path, folders: Iterable[str], *, folders_in: Callable[[str], Iterable[str]], has_images: Callable[[str], bool]
) -> dict[str, str]:
    """The splits among the sub-folders of a data set.

    Args:
      root: the folder, for errors.
      folders: names of its sub-folders.
      folders_in: the names of the sub-folders of one of them.
      has_images: whether there is an image at any depth below one of them.

    Returns:
      Name by split, with "train" among them; empty if the sub-folders are classes.

    Raises:
      UserError: it cannot be told which they are.
    """
    folders = list(folders)
    named = {split: [name for name in folders if kind(name) == split] for split in SPLITS}
    for names in named.values():
        if len(names) > 1:
            raise UserError(f"{printable(str(root))} has both {' and '.join(map(printable, names))}; keep one")
    found = {split: names[0] for split, names in named.items() if names}
    others = [name for name in folders if kind(name) is None]
    if "train" not in found:
        if found:
            raise _unclear(root, f"{some(list(found.values()))}, and no train")
        _check_classes(root, others, folders_in)
    # One class of several may well be called train.
    elif len(found) == 1:
        beside = [name for name in others if _plain(name) not in _PARTS and has_images(name)]
        if len(beside) > 1:
            raise _unclear(root, f"{printable(found['train'])}, and beside it images in {some(beside)}")
    return found


def check_split(folder: Path, classes: Iterable[str]) -> None:
    """Raises `UserError` if what should be the classes of a split are splits or parts of another kind of set."""
    classes = list(classes)
    if len(classes) > 1 and all(kind(name) or _plain(name) in _PARTS for name in classes):
        raise _unclear(folder, some(classes))


def _check_classes(root: Path, folders: list[str], folders_in: Callable[[str], Iterable[str]]) -> None:
    """Raises `UserError` if the sub-folders of a heap are anything but classes."""
    check_split(root, folders)
    alike = {name: stem for name in folders if (stem := _stem(name))}
    if len(set(alike.values())) > 1 and 2 * len(alike) >= len(folders):
        raise _unclear(root, some(list(alike)))
    repeated = collections.Counter(
        inner for name in folders for inner in folders_in(name) if _plain(inner) not in _PARTS
    )
    often = [name for name, count in repeated.items() if count > 1 and 2 * count >= len(folders)]
    if often:
        raise _unclear(root, f"{some(folders, 2)}, with the same folders in them ({some(often, 2)})")


def _unclear(folder: Path, found: str) -> UserError:
    where = printable(str(folder))
    return UserError(f"{where}: classes or splits? Found {found}; {_MEANT} (if these are classes, put them in train/)")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.casefold())


def _stem(name: str) -> str | None:
    """The split that is named by a word of the name, as in `seg_train`, `cars_test` and `val2017`."""
    words = re.findall("[a-z]+", name.casefold())
    return next((_STEMS[word] for word in words if word in _STEMS), None)
