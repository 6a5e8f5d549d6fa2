"""Turns sources into arrays: every image is decoded and resized once, on the host."""

import concurrent.futures
import os

import numpy as np
from PIL import Image

from vpns_jax.data.dataset import Dataset, Split, TrainSplit, large_size
from vpns_jax.data.source import Source, Sources

# The default limit for a data set in memory. At 224 px, all data sets of the paper fit except CIFAR, Food101,
# Tiny-ImageNet and ImageNet.
BUDGET_BYTES = 4 * 2**30


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes to a square with PIL's antialiased bilinear filter, the reference for all resizing here.

    Args:
      image: uint8 `[h, w, c]`, c in {1, 3}.
      size: side of the result in pixels; the aspect ratio is not kept.

    Returns:
      uint8 `[size, size, c]`.
    """
    h, w, c = image.shape
    if (h, w) == (size, size):
        return image
    picture = Image.fromarray(image[..., 0] if c == 1 else image)
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, c)


def resident_bytes(sources: Sources, *, image_size: int) -> int:
    """The bytes that sources take as uint8 arrays; training images are counted at both of their sizes.

    Args:
      sources: the data set.
      image_size: the network's image size in pixels.

    Returns:
      The number of bytes.

    Raises:
      UserError: the first image became unreadable.
    """
    c = sources.train[0][0].shape[-1]
    large = large_size(image_size)
    held = len(sources.train) * (image_size**2 + large**2) + (len(sources.val) + len(sources.test)) * image_size**2
    return held * c


def materialize(sources: Sources, *, image_size: int) -> Dataset:
    """Decodes all images of a data set into memory; see `resident_bytes`.

    Args:
      sources: the data set.
      image_size: the network's image size in pixels.

    Returns:
      The data set in memory.

    Raises:
      UserError: an image became unreadable.
    """
    sizes = (image_size, large_size(image_size))
    train, large = decode(sources.train, sizes)
    (val,), (test,) = decode(sources.val, sizes[:1]), decode(sources.test, sizes[:1])
    return Dataset(
        sources.name,
        sources.classes,
        TrainSplit(train, sources.train.labels, large),
        Split(val, sources.val.labels),
        Split(test, sources.test.labels),
        sources.flip,
        sources.skipped,
        sources.notes,
    )


def decode(source: Source, sizes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Decodes all images of a source, and resizes them to each of some sizes.

    Args:
      source: the images.
      sizes: sides of the results in pixels.

    Returns:
      For each size, uint8 `[n, size, size, c]`.

    Raises:
      UserError: an image became unreadable.
    """
    n, c = len(source), source[0][0].shape[-1]
    arrays = tuple(np.empty((n, size, size, c), np.uint8) for size in sizes)

    def fill(index: int) -> None:
        image, _ = source[index]
        for array, size in zip(arrays, sizes, strict=True):
            array[index] = resize(image, size)

    # Threads are enough, because PIL releases the interpreter's lock while it decodes and resizes.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, range(n)):
            pass
    return arrays
