"""Data sets by name: `load` gives train, validation and test as uint8 images of one size."""

from vpns_jax.data.bundled import BUNDLED
from vpns_jax.data.dataset import Dataset, Split, TrainSplit, split_rows
from vpns_jax.errors import UserError, check_name

__all__ = ["Dataset", "Split", "TrainSplit", "check", "load", "names"]


def names() -> tuple[str, ...]:
    """The data sets `load` knows."""
    return tuple(BUNDLED)


def check(name: str) -> None:
    """Raises `UserError`, which lists the known names, if `load` does not know this one."""
    check_name("data set", name, names())


def load(name: str, *, image_size: int, val_fraction: float = 0.1, seed: int = 0) -> Dataset:
    """Reads a data set into memory.

    Args:
      name: one of `names()`.
      image_size: the side of all images; they are resized, ratio disregarded.
      val_fraction: in (0, 1), the share of each class of the training images that is held out for validation.
      seed: draws them.

    Raises:
      UserError: an unknown name, a package that is not installed, or a fraction that leaves a split empty.
    """
    check(name)
    if image_size < 1:
        raise UserError(f"image_size is {image_size}; it must be at least 1")
    entry = BUNDLED[name]
    learn, test = entry.load()
    train_rows, val_rows = split_rows(learn.labels, val_fraction, seed)
    train = learn.take(train_rows)
    small, large = train.resized(image_size), train.resized(image_size * 9 // 8)
    return Dataset(
        name=name,
        classes=entry.classes,
        train=TrainSplit(small.images, small.labels, large.images),
        val=learn.take(val_rows).resized(image_size),
        test=test.resized(image_size),
        flip=entry.flip,
    )
