"""Sources of images: random access to the decoded images of a split, which may be of any number and size."""

import dataclasses
from typing import Protocol

import numpy as np

from vpns_jax.data.decoding import AS_STORED, Decoding
from vpns_jax.errors import UserError


class Source(Protocol):
    """One split, whose images are decoded one by one on request.

    All images of a source have the same number of channels. Sources are sent to worker processes, so they can be
    pickled.
    """

    @property
    def labels(self) -> np.ndarray:
        """int32 `[n]`; no image is decoded for it."""

    def __len__(self) -> int:
        """The number of images, n."""

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        """Image `index` and its label. The image is uint8 `[h, w, c]`, c in {1, 3}; sizes may differ."""


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Images in memory, uint8 `[n, h, w, c]`, with labels int32 `[n]`."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        return self.images[index], int(self.labels[index])


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """A part of another source: the images at `indices`, int `[m]`, in that order."""

    source: Source
    indices: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """int32 `[m]`."""
        return self.source.labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        return self.source[int(self.indices[index])]


@dataclasses.dataclass(frozen=True, eq=False)
class Original:
    """A data set with its original splits; `val` is None if there is no such split. See `Sources`."""

    classes: tuple[str, ...]
    flip: bool
    train: Source
    test: Source
    val: Source | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    decoding: Decoding = AS_STORED


@dataclasses.dataclass(frozen=True, eq=False)
class Sources:
    """A data set for training whose images are not decoded yet. The other fields are those of `dataset.Dataset`.

    Attributes:
      skipped: "path: reason" for each unreadable file, which was left out.
      notes: other facts that a user should know, one line each: a folder's skipped files, its duplicates, and how its
        files are decoded.
      decoding: how image files are decoded. Images for later predictions must be decoded in the same way.
    """

    name: str
    classes: tuple[str, ...]
    flip: bool
    train: Source
    val: Source
    test: Source
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    decoding: Decoding = AS_STORED


def with_validation(original: Original, name: str, *, val_fraction: float, seed: int) -> Sources:
    """Holds a validation split out of the training split, unless the data set has its own.

    Args:
      original: the data set.
      name: the data set's name.
      val_fraction: share of each class of the training split to hold out, in (0, 1); ignored if none is held out.
      seed: the seed of the validation split.

    Returns:
      The data set with three splits; the test split is unchanged.

    Raises:
      UserError: a split has no images, or a validation split is held out and the fraction is outside (0, 1).
    """
    train, val = original.train, original.val
    if val is None:
        kept, held = stratified_holdout(train.labels, val_fraction, seed=seed)
        train, val = Subset(train, kept), Subset(train, held)
    for split, source in (("training", train), ("validation", val), ("test", original.test)):
        if not len(source):
            raise UserError(
                f"data set {name!r} has no {split} images: {len(train)} to train on, {len(val)} for validation and "
                f"{len(original.test)} to test on; give it more images, or a folder for each split"
            )
    return Sources(
        name,
        original.classes,
        original.flip,
        train,
        val,
        original.test,
        original.skipped,
        original.notes,
        original.decoding,
    )


def stratified_holdout(labels: np.ndarray, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits indices into two parts, class by class. The result depends on the arguments alone.

    Of a class of m images, `fraction * m`, rounded half up, are held out: at least one if there are two or more, and
    never all.

    Args:
      labels: int `[n]`.
      fraction: the share to hold out, in (0, 1).
      seed: the seed of the random choice.

    Returns:
      (kept, held): disjoint ascending int64 indices that cover range(n).

    Raises:
      UserError: the fraction is outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise UserError(f"val_fraction is {fraction}; the share to hold out must lie in (0, 1)")
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(int(fraction * len(members) + 0.5), 1), len(members) - 1)
        # Each class has its own generator, so its images do not depend on the other classes.
        held[np.random.default_rng([seed, int(label)]).permutation(members)[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
