"""Formats accuracies on images whose classes are known, as text and as JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

from vpns_jax.analysis.confusion import Confusion
from vpns_jax.analysis.tables import aligned, percent

# A larger confusion matrix does not fit a screen; the most frequent mistakes are listed instead.
MOST_COLUMNS, MOST_MISTAKES = 12, 10


def as_json(confusion: Confusion, classes: Sequence[str]) -> dict[str, Any]:
    """Converts accuracies and the confusion matrix to a JSON object.

    Args:
      confusion: the counts.
      classes: the names of the classes.

    Returns:
      Plain values.
    """
    return {
        "images": int(confusion.counts.sum()),
        "accuracy": confusion.accuracy,
        "mean_class_accuracy": confusion.mean_class_accuracy,
        "majority_class": confusion.majority,
        "recall": dict(zip(classes, confusion.recall, strict=True)),
        "confusion": confusion.counts.tolist(),
    }


def as_text(confusion: Confusion, classes: Sequence[str]) -> str:
    """Lists accuracies, the recall of each class, and the confusion matrix or the most frequent mistakes.

    Args:
      confusion: the counts.
      classes: the names of the classes.

    Returns:
      The text.
    """
    return "\n".join(_parts(confusion, classes))


def _parts(confusion: Confusion, classes: Sequence[str]) -> Iterator[str]:
    yield (
        f"accuracy {percent(confusion.accuracy)}% of {confusion.counts.sum():,} images, mean per-class accuracy "
        f"{percent(confusion.mean_class_accuracy)}%; always answering with the most frequent class gives "
        f"{percent(confusion.majority)}%\n"
    )
    recall = [
        (name, str(count), percent(share))
        for name, count, share in zip(classes, confusion.images.tolist(), confusion.recall, strict=True)
        if count
    ]
    yield aligned(("class", "images", "recall\n%"), recall)
    if len(classes) <= MOST_COLUMNS:
        rows = zip(classes, confusion.counts.tolist(), strict=True)
        yield aligned(("label\\predicted", *classes), [(name, *map(str, row)) for name, row in rows])
    else:
        mistakes = [(classes[i], classes[j], str(n)) for i, j, n in confusion.mistakes(MOST_MISTAKES)]
        yield aligned(("most frequent mistakes", "taken for", "images"), mistakes)
