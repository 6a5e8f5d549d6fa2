"""Data sets of one's own, from Python: `my_module:make_data`, a function without arguments that returns the splits.

It may also stand in a file, `path/to/file.py:make_data`.

    def make_data():
        return {"train": train, "test": test, "classes": ("cat", "dog")}

A split is anything with `len(split)` and `split[i]`: a list, a grain source, a data set of PyTorch or Hugging Face. Its
items are pairs (image, label), or mappings with the keys "image" and "label". An image is uint8 [h, w], [h, w, 1] or
[h, w, 3], or one of PIL's; sizes may differ. A label is an integer from 0 on.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vpns_jax import references
from vpns_jax.data.source import Original
from vpns_jax.data.text import printable
from vpns_jax.errors import UserError, short, shorten

_SPLITS = ("train", "val", "test")


@functools.lru_cache(maxsize=1)
def open_own(name: str) -> Original:
    """Calls the function and reads every item once, to check it and to know the labels.

    Args:
      name: `module:function`.

    Returns:
      The data set. Images are flipped in training unless the function returned `"flip": False`.

    Raises:
      UserError: the function fails, or what it returns has another form than this file describes.
    """
    made = _made(name)
    sources = {split: _Read.of(made[split], f"{name}, {split}") for split in _SPLITS if split in made}
    most = max((int(source.labels.max()) for source in sources.values() if len(source)), default=-1)
    classes = _names(name, made.get("classes", range(most + 1)))
    if most >= len(classes):
        raise UserError(f"data set {short(name)} has the label {most}, and names {len(classes)} classes: 0 to N - 1")
    color = max((source.channels for source in sources.values()), default=1)
    train, test, val = (
        dataclasses.replace(sources[split], channels=color) if split in sources else None
        for split in ("train", "test", "val")
    )
    assert train is not None
    assert test is not None
    return Original(classes, bool(made.get("flip", True)), train, test, val)


def contents(name: str) -> tuple[bytes, ...]:
    """What the data set's digest is made of: class names, and all images and labels, split by split.

    Args:
      name: `module:function`.

    Returns:
      The parts.

    Raises:
      UserError: as `open_own`.
    """
    original = open_own(name)
    splits = {"train": original.train, "val": original.val, "test": original.test}
    parts = [f"{split} {source.digest}" for split, source in splits.items() if isinstance(source, _Read)]
    # Each part ends with a line end, which no name contains: otherwise "ab", "c" would look like "a", "bc".
    return tuple(f"{part}\n".encode() for part in (*original.classes, str(original.flip), *parts))


@dataclasses.dataclass(frozen=True, eq=False)
class _Read:
    """A split whose items were all read once; see `Source`.

    Attributes:
      items: the user's split.
      labels: int32 [n].
      channels: 3 if an image has color, or an image of another split has.
      digest: of all images and labels.
      where: the data set and the split, for errors.
    """

    items: Any
    labels: np.ndarray
    channels: int
    digest: str
    where: str

    @classmethod
    def of(cls, items: Any, where: str) -> "_Read":
        try:
            count = len(items)
        except TypeError as error:
            raise UserError(f"{where}: a split needs len() and [index], and {type(items).__name__} has none") from error
        summed, labels, channels = hashlib.blake2b(digest_size=16), np.zeros(count, np.int32), 1
        for i in range(count):
            image, labels[i] = _item(items, i, where)
            channels = max(channels, image.shape[-1])
            summed.update(f"{image.shape} {labels[i]} ".encode() + image.tobytes())
        return cls(items, labels, channels, summed.hexdigest(), where)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        image, label = _item(self.items, index, self.where)
        return np.repeat(image, self.channels // image.shape[-1], axis=-1), label


def _made(name: str) -> Mapping[str, Any]:
    try:
        made = references.resolve(name, "data set")()
    except UserError:
        raise
    # Whatever the user's function raises.
    except Exception as error:
        raise UserError(f"data set {short(name)} failed: {references.describe(error)}") from error
    if not isinstance(made, Mapping) or not {"train", "test"} <= made.keys() <= {*_SPLITS, "classes", "flip"}:
        got = f"the keys {', '.join(map(str, made))}" if isinstance(made, Mapping) else type(made).__name__
        raise UserError(
            f"data set {short(name)} returned {shorten(got, 80)}; it must be a mapping with train and test, "
            "and perhaps val, classes and flip"
        )
    return made


def _names(name: str, classes: Any) -> tuple[str, ...]:
    """The names of the classes, on one line each. Sets have no order, and a string would fall apart into letters."""
    if not isinstance(classes, Iterable) or isinstance(classes, str | bytes | Mapping | set | frozenset):
        raise UserError(f"data set {short(name)} has the classes {short(classes)}; they must be a list of names")
    return tuple(printable(str(each)) for each in classes)


def _item(items: Any, index: int, where: str) -> tuple[np.ndarray, int]:
    try:
        item = items[index]
        image, label = (item["image"], item["label"]) if isinstance(item, Mapping) else item
        image, label = _pixels(image), np.asarray(label)
    # Whatever the user's split raises.
    except Exception as error:
        raise UserError(
            f"{where}, item {index}: {references.describe(error)}; allowed are pairs (image, label)"
        ) from error
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3) or 0 in image.shape:
        raise UserError(
            f"{where}, item {index}: the image is {image.dtype} {list(image.shape)}; allowed are uint8 "
            "[h, w], [h, w, 1] and [h, w, 3], with values 0 to 255"
        )
    if label.size != 1 or label.dtype.kind not in "iu" or not 0 <= label.item() < 2**31:
        raise UserError(f"{where}, item {index}: the label is {short(str(label))}; it must be an integer from 0 on")
    return image, int(label.item())


def _pixels(image: Any) -> np.ndarray:
    """The image as an array with an axis of channels."""
    if hasattr(image, "convert") and hasattr(image, "getbands"):
        # One of PIL's.
        image = image if image.mode in ("L", "RGB") else image.convert("RGB")
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
