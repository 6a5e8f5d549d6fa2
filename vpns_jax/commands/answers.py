"""Formats a network's answers for image files as a table, CSV or JSON."""

import csv
import dataclasses
import functools
import io
import json
from collections.abc import Iterator, Sequence

import numpy as np

from vpns_jax import files
from vpns_jax.analysis.confusion import Confusion
from vpns_jax.analysis.tables import aligned
from vpns_jax.commands import scores
from vpns_jax.data import printable
from vpns_jax.deploy import Answer, Predictions
from vpns_jax.errors import LONGEST, UserError

# A file's path, its label if that is known, and its likeliest classes.
Row = tuple[str, str | None, list[tuple[str, float]]]


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """A network's answers for the readable files, and a list of the unreadable ones.

    Attributes:
      paths: the readable files.
      labels: the class of each file; None if it is not known.
      predictions: the network's predictions, in the same order.
      skipped: the unreadable files, each with the reason.
    """

    paths: tuple[str, ...]
    labels: tuple[int | None, ...]
    predictions: Predictions
    skipped: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, answers: Sequence[Answer], labels: Sequence[int | None], classes: tuple[str, ...]) -> "Answers":
        """Gathers the answers to some files.

        Args:
          answers: an answer for each file.
          labels: the class of each file; None if it is not known.
          classes: the names of the classes.

        Returns:
          The answers.

        Raises:
          UserError: none of the files can be read.
        """
        skipped = tuple((printable(str(answer.path)), answer.reason) for answer in answers if answer.reason)
        if len(skipped) == len(answers):
            path, reason = skipped[0]
            raise UserError(
                f"none of the {len(answers)} images can be read; the first, {path[-200:]}: {reason}"[:LONGEST]
            )
        return cls(
            tuple(printable(str(answer.path)) for answer in answers if not answer.reason),
            tuple(label for answer, label in zip(answers, labels, strict=True) if not answer.reason),
            Predictions(np.stack([one.probabilities for one in answers if one.probabilities is not None]), classes),
            skipped,
        )

    @functools.cached_property
    def confusion(self) -> Confusion | None:
        """The confusion matrix of the images whose classes are known; None if there are none."""
        pairs = zip(self.labels, self.predictions.labels.tolist(), strict=True)
        known = [(label, prediction) for label, prediction in pairs if label is not None]
        return Confusion.of(known, len(self.predictions.classes)) if known else None

    def as_table(self, count: int) -> str:
        """Makes a table with the `count` likeliest classes of each image."""
        rows = list(self._rows(count))
        labelled = any(label is not None for label in self.labels)
        places = [f"{k + 1}." if count > 1 else "class" for k in range(len(rows[0][2]))]
        headings = ["image", *(["label"] if labelled else [])]
        headings += [word for place in places for word in (place, "probability\n%")]
        body = [
            [
                path,
                *([label or ""] if labelled else []),
                *(text for name, p in top for text in (name, f"{100 * p:.1f}")),
            ]
            for path, label, top in rows
        ]
        return aligned(headings, body)

    def as_csv(self, count: int) -> str:
        """Makes CSV with the `count` likeliest classes of each image; probabilities lie in [0, 1]."""
        rows, text = list(self._rows(count)), io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        places = range(1, len(rows[0][2]) + 1)
        writer.writerow(["image", "label", *(word for k in places for word in (f"class_{k}", f"probability_{k}"))])
        for path, label, top in rows:
            writer.writerow([path, label or "", *(value for name, p in top for value in (name, f"{p:.6g}"))])
        return text.getvalue()

    def as_json(self, count: int, *, network: str, prompted: bool) -> str:
        """Makes JSON with the `count` likeliest classes of each image, and with the accuracies.

        Args:
          count: the number of classes for each image.
          network: the network's path.
          prompted: whether the prompt was applied.

        Returns:
          The text.
        """
        classes, confusion = self.predictions.classes, self.confusion
        answer = {
            "network": network,
            "prompted": prompted,
            "classes": classes,
            "images": [
                {"path": path, "label": label, "top": [{"class": name, "probability": p} for name, p in top]}
                for path, label, top in self._rows(count)
            ],
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped],
            "scores": None if confusion is None else scores.as_json(confusion, classes),
        }
        return json.dumps(files.plain(answer), indent=2) + "\n"

    def _rows(self, count: int) -> Iterator[Row]:
        classes = self.predictions.classes
        names = [None if label is None else classes[label] for label in self.labels]
        yield from zip(self.paths, names, self.predictions.top(count), strict=True)
