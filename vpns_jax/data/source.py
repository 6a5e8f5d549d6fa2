"""Where images come from, whatever their number: random access to decoded images of any size."""

import dataclasses
from typing import Protocol

import numpy as np

from vpns_jax.data.decoding import AS_STORED, Decoding
from vpns_jax.errors import UserError


class Source(Protocol):
    """One split, decoded image by image as it is asked for.

    All images of a source have the same number of channels. Sources travel to worker processes, so they can be
    pickled.
    """

    @property
    def labels(self) -> np.ndarray:
        """int32 [n], without decoding an image."""

    def __len__(self) -> int:
        """n, the number of images."""

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        """Image `index`, uint8 [h, w, c] with c in {1, 3} and a size of its own, and its label."""


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Images that are in memory: uint8 [n, h, w, c]; labels int32 [n]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        return self.images[index], int(self.labels[index])


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Some images of another source: those at `indices`, int [m], in that order."""

    source: Source
    indices: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        return self.source.labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        return self.source[int(self.indices[index])]


@dataclasses.dataclass(frozen=True, eq=False)
class Original:
    """A data set as its makers split it; `val` is None if they made none. The rest is as in `Sources`."""

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
    """A data set to train on: as `dataset.Dataset`, with images not yet decoded.

    Attributes:
      skipped: which files were left out as unreadable, "path: reason" each.
      notes: what else a user should know, a line each: of a folder what was passed over, which files are the same, and
        how they are read.
      decoding: how their bytes become pixels. Whoever predicts with a network that was trained on them decodes alike.
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
    """Holds a validation split out of train, unless the data set brings its own; test is as it was.

    Args:
      val_fraction: share of each class of train to hold out, in (0, 1).
      seed: of the draw.
    """
    train, val = original.train, original.val
    if val is None:
        kept, held = stratified_holdout(train.labels, val_fraction, seed=seed)
        train, val = Subset(train, kept), Subset(train, held)
    for split, source in (("training", train), ("validation", val), ("test", original.test)):
        if not len(source):
            raise UserError(
                f"data set {name!r} has no {split} images: {len(train)} to train on, {len(val)} for validation and "
                f"{len(original.test)} to test on; give it more images, or a split of its own for each"
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
    """Splits indices in two by class, a pure function of its arguments.

    Of a class of m images, `fraction * m` rounded half up are held out; of two or more at least one, and never all.

    Args:
      labels: int [n].
      fraction: in (0, 1).
      seed: of the draw.

    Returns:
      (kept, held): disjoint ascending int64 indices that cover range(n).

    Raises:
      UserError: a fraction outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise UserError(f"val_fraction is {fraction}; the share to hold out must lie in (0, 1)")
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(int(fraction * len(members) + 0.5), 1), len(members) - 1)
        # A generator for each class: what is drawn of one does not depend on the others.
        held[np.random.default_rng([seed, int(label)]).permutation(members)[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
