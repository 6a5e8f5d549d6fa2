"""A data set in memory, resized once on the host to the network's image size."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Attributes:
      images: uint8 `[n, h, w, c]`, c in {1, 3}.
      labels: int32 `[n]`, below the number of classes.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        _check_images("images", self.images, len(self.labels))
        if self.labels.dtype != np.int32 or self.labels.ndim != 1:
            raise ValueError(f"labels must be int32 [n], found {self.labels.dtype} {list(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainSplit(Split):
    """A training split: the same images at two sizes.

    Attributes:
      images: uint8 `[n, h, w, c]`, resized to the network's image size, for passes without augmentation.
      large: uint8 `[n, H, W, c]`, resized to 9/8 of that size; passes with augmentation crop from these.
    """

    large: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_images("large", self.large, len(self.labels))


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with square images of one size. The splits are disjoint.

    Attributes:
      name: the name by which `data.load` loads it.
      classes: the classes' names; a label is an index into them.
      train: the training split.
      val: the validation split, for the selection of models.
      test: the test split, for final results.
      flip: whether a horizontally mirrored image keeps its label.
      skipped: "path: reason" for each unreadable file, which was left out.
      notes: other facts about a folder that its owner should know; see `source.Sources`.
    """

    name: str
    classes: tuple[str, ...]
    train: TrainSplit
    val: Split
    test: Split
    flip: bool
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)


def large_size(image_size: int) -> int:
    """The size to which images are resized before a random crop of `image_size`: 9/8 of it, rounded down."""
    return 9 * image_size // 8


def _check_images(what: str, images: np.ndarray, n: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != n or images.shape[-1] not in (1, 3):
        raise ValueError(f"{what} must be uint8 [{n}, h, w, 1 or 3], found {images.dtype} {list(images.shape)}")
