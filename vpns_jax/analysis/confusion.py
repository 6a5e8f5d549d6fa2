"""Which classes are taken for which: the counts behind an accuracy, and what the accuracy does not say."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Confusion:
    """How many images of each class were taken for each class.

    Attributes:
      counts: int [t, t]; rows are the labels, columns the predictions.
    """

    counts: np.ndarray

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]], classes: int) -> "Confusion":
        """The counts of some images.

        Args:
          pairs: of each image the label and what it was taken for, both below `classes`.
          classes: how many there are.
        """
        counts = np.zeros((classes, classes), np.int64)
        for pair in pairs:
            counts[pair] += 1
        return cls(counts)

    @classmethod
    def from_json(cls, lines: Sequence[str]) -> "Confusion":
        """What `to_json` wrote."""
        counts = np.zeros((len(lines), len(lines)), np.int64)
        for label, line in enumerate(lines):
            for pair in line.split():
                prediction, count = map(int, pair.split(":"))
                counts[label, prediction] = count
        return cls(counts)

    def to_json(self) -> list[str]:
        """A line for each label, such as "0:98 3:2": 98 of its images were taken for class 0, and 2 for class 3.

        Pairs that never came are left out: of a thousand classes that is nearly all.
        """
        return [
            " ".join(f"{prediction}:{row[prediction]}" for prediction in np.flatnonzero(row)) for row in self.counts
        ]

    @property
    def images(self) -> np.ndarray:
        """How many images there are of each class, int [t]."""
        return self.counts.sum(axis=1)

    @property
    def accuracy(self) -> float | None:
        """The share of images that are classified correctly; None without images."""
        return _share(np.trace(self.counts), int(self.counts.sum()))

    @property
    def recall(self) -> list[float | None]:
        """For each class the share of its images that are recognized; None of a class without images."""
        return [_share(right, all_) for right, all_ in zip(np.diagonal(self.counts), self.images, strict=True)]

    @property
    def mean_class_accuracy(self) -> float | None:
        """The mean of `recall` over the classes that have images: every class counts the same, however rare."""
        known = [share for share in self.recall if share is not None]
        return sum(known) / len(known) if known else None

    @property
    def majority(self) -> float | None:
        """The accuracy of always answering with the most frequent class; None without images."""
        return _share(self.images.max(initial=0), int(self.counts.sum()))

    @property
    def most_frequent(self) -> int | None:
        """The class with the most images, of equals the first; None without images."""
        return int(np.argmax(self.images)) if self.counts.any() else None

    def worst(self, most: int) -> list[int]:
        """The classes with images that are recognized least, the worst first, of equals the first.

        Args:
          most: how many to name at most.
        """
        known = [(share, label) for label, share in enumerate(self.recall) if share is not None]
        return [label for _, label in sorted(known)[:most]]

    def mistakes(self, most: int) -> list[tuple[int, int, int]]:
        """The most frequent mistakes: (label, prediction, count), the most frequent first, of equals the first."""
        wrong = self.counts - np.diag(np.diagonal(self.counts))
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
        return [(int(i), int(j), int(wrong[i, j])) for i, j in pairs if wrong[i, j]]


def _share(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole else None
