"""Prepares images of any size for a network: uint8 squares of three channels, resized as in evaluation."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from vpns_jax.data.materialize import resize
from vpns_jax.errors import UserError

T = TypeVar("T")
R = TypeVar("R")


def separate(images: Any) -> Sequence[np.ndarray]:
    """Splits a batch, a list or one image into single images.

    Args:
      images: uint8 [b, h, w, c] or [h, w, c], or a list of [h, w, c] of different sizes; c is 1 or 3.

    Returns:
      Arrays uint8 [h, w, c].

    Raises:
      UserError: the images have another dtype or shape.
    """
    if isinstance(images, list | tuple):
        separated = [np.asarray(image) for image in images]
    else:
        array = np.asarray(images)
        separated = list(array) if array.ndim == 4 else [array]
    for image in separated:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3) or not image.size:
            raise UserError(
                f"images must be uint8 [b, h, w, 3], a list of [h, w, 3] or one of them, 0 ... 255; found "
                f"{image.dtype} {list(image.shape)}"
            )
    return separated


def square(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes an image to a square, without keeping the aspect ratio; a gray channel is copied to three channels.

    Args:
      image: uint8 `[h, w, c]`, c is 1 or 3.
      size: side of the result in pixels.

    Returns:
      uint8 `[size, size, 3]`.
    """
    return np.broadcast_to(resize(image, size), (size, size, 3))


def in_order(function: Callable[[T], R], items: Iterable[T], *, ahead: int) -> Iterator[R]:
    """Computes `map(function, items)` in threads, some items ahead.

    Args:
      function: the function.
      items: its arguments.
      ahead: the most results that are computed before they are needed.

    Yields:
      The results, in the order of the items.
    """
    # Threads are enough, because PIL releases the interpreter's lock while it decodes and resizes.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: collections.deque[concurrent.futures.Future[R]] = collections.deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields the items in lists of `size`; the last list may be shorter."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
