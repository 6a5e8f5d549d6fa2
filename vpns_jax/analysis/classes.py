"""Accuracy by class, as reports show it: of few classes all, of many the worst and the most frequent mistakes."""

from collections.abc import Mapping, Sequence
from typing import Any

from vpns_jax.analysis.confusion import Confusion
from vpns_jax.analysis.tables import percent

# More classes fit neither a screen nor a picture: then only the worst are shown, and the most frequent mistakes.
MOST_CLASSES, WORST, MOST_MISTAKES = 20, 10, 10

CLASS_HEADINGS = ("class", "images", "recognized", "recall %")
MISTAKE_HEADINGS = ("most frequent mistakes", "taken for", "images")


def confusion_of(cell: Mapping[str, Any]) -> Confusion | None:
    """Which classes the tested network of a cell took for which: prompted, or plain if it has no prompt.

    Args:
      cell: a cell of summary.json.

    Returns:
      The counts; None if the cell was tested by a version that did not count.
    """
    counts = cell.get("confusion") or {}
    lines = counts.get("prompted") or counts.get("plain")
    return Confusion.from_json(lines) if lines else None


def names_of(summary: Mapping[str, Any], confusion: Confusion) -> list[str]:
    """The names of the classes; their numbers if the summary does not say them.

    Args:
      summary: the contents of summary.json.
      confusion: the counts of a cell.
    """
    names, count = [str(name) for name in summary.get("classes") or ()], len(confusion.counts)
    return names if len(names) == count else [str(number) for number in range(count)]


def shown(confusion: Confusion) -> list[int]:
    """The classes that a table or a picture has room for: all, or the worst.

    Args:
      confusion: the counts.

    Returns:
      Their numbers: in order, or the worst first.
    """
    classes = len(confusion.counts)
    return list(range(classes)) if classes <= MOST_CLASSES else confusion.worst(WORST)


def class_rows(confusion: Confusion, names: Sequence[str]) -> list[tuple[str, ...]]:
    """How many images of each shown class were recognized, as text for `CLASS_HEADINGS`.

    Args:
      confusion: the counts.
      names: of all classes.
    """
    recall, images = confusion.recall, confusion.images
    return [(names[i], f"{images[i]:,}", f"{confusion.counts[i, i]:,}", percent(recall[i])) for i in shown(confusion)]


def mistake_rows(confusion: Confusion, names: Sequence[str]) -> list[tuple[str, ...]]:
    """The most frequent mistakes, as text for `MISTAKE_HEADINGS`.

    Args:
      confusion: the counts.
      names: of all classes.
    """
    return [(names[i], names[j], f"{count:,}") for i, j, count in confusion.mistakes(MOST_MISTAKES)]


def baseline(summary: Mapping[str, Any]) -> str:
    """What answering without looking at the image gives, in a sentence; "" if no cell counted.

    Args:
      summary: the contents of summary.json. Its cells are tested on the same images.
    """
    confusion = next(filter(None, map(confusion_of, summary["cells"])), None)
    if confusion is None or confusion.most_frequent is None:
        return ""
    return (
        f"Always answering {names_of(summary, confusion)[confusion.most_frequent]}, the most frequent class of the "
        f"test images, is right for {percent(confusion.majority)}% of them."
    )
