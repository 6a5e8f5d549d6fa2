"""A data set in memory: three splits of uint8 images of one size."""

import dataclasses

import numpy as np
from PIL import Image

from vpns_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Split:
    """Images uint8 [n, h, w, c] with c in {1, 3}, and labels int32 [n]."""

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] not in (1, 3):
            raise ValueError(f"images must be uint8 [n, h, w, 1 or 3], found {self.images.dtype} {self.images.shape}")
        if self.labels.dtype != np.int32 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels must be int32 [n], found {self.labels.dtype} {self.labels.shape}")

    @property
    def size(self) -> int:
        """The number of images, n."""
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Split":
        """The split of those rows alone."""
        return Split(self.images[rows], self.labels[rows])

    def resized(self, size: int) -> "Split":
        """The split with every image resized to `size` x `size`."""
        return Split(resize(self.images, size), self.labels)


@dataclasses.dataclass(frozen=True)
class TrainSplit(Split):
    """A training split; `large` uint8 [n, H, H, c] are the same images at 9/8 of the size, to take crops from."""

    large: np.ndarray


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Splits that share no image. `flip` says whether a mirrored image keeps its label."""

    name: str
    classes: tuple[str, ...]
    train: TrainSplit
    val: Split
    test: Split
    flip: bool

    @property
    def num_classes(self) -> int:
        """How many classes there are, seen in the data or not."""
        return len(self.classes)


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 [n, h, w, c] to uint8 [n, size, size, c] by Pillow's antialiased bilinear filter."""
    if images.shape[1:3] == (size, size):
        return images
    grey = images.shape[-1] == 1
    resized = [
        np.asarray(Image.fromarray(image[..., 0] if grey else image).resize((size, size), Image.Resampling.BILINEAR))
        for image in images
    ]
    return np.stack(resized).reshape(len(images), size, size, images.shape[-1])


def split_rows(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows drawn by `seed` so that each class gives the same share: (the rest, the `fraction`), each in order.

    Raises:
      UserError: one of the two would be empty.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        held[rng.permutation(rows)[: round(fraction * len(rows))]] = True
    if held.all() or not held.any():
        raise UserError(f"a fraction of {fraction} of {len(labels)} images leaves one of two splits empty")
    return np.flatnonzero(~held), np.flatnonzero(held)
