"""Batches of a split: from arrays on the device, or streamed from the host.

A split that fits stays on the device as uint8 and is shuffled, cropped and flipped there. A larger split is decoded on
the host ahead of time, and also cropped and flipped on the device.
"""

import dataclasses
import functools
from collections.abc import Generator, Iterator
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vpns_jax.data import Source, augment
from vpns_jax.data.materialize import resize
from vpns_jax.data.order import epoch_order, padded_batches
from vpns_jax.data.stream import eval_stream, train_stream
from vpns_jax.data.transfer import DeviceStream
from vpns_jax.parallel import sharding

# The images uint8 [b, h, w, c] and labels int32 [b] of one pass.
Batch = tuple[jax.Array, jax.Array]
# Images uint8 [b, h, w, c], labels int32 [b] and weights [b], which are zero for padding.
EvalBatch = tuple[jax.Array, jax.Array, jax.Array | np.ndarray]


@struct.dataclass
class Resident:
    """One split on the device.

    Attributes:
      images: uint8 [n, h, w, c] of the network's image size, for passes without augmentation and for evaluation.
      labels: int32 [n].
      large: uint8 [n, h', w', c], a little larger, from which augmented passes crop; None if nothing trains on it.
      flip: whether a mirrored image keeps its label.
    """

    images: jax.Array
    labels: jax.Array
    large: jax.Array | None = None
    flip: bool = struct.field(pytree_node=False, default=False)

    @property
    def size(self) -> int:
        """The number of images."""
        return self.labels.shape[0]

    def eval_batches(self, batch_size: int) -> Generator[EvalBatch, None, None]:
        """Yields every image once, without augmentation, in batches of one shape; the last one is padded.

        Args:
          batch_size: images in a batch.

        Yields:
          Images uint8 [b, h, w, c], labels int32 [b], and weights [b], which are 0 for padding.
        """
        for indices, weights in zip(*padded_batches(self.size, batch_size), strict=True):
            yield (*_take_padded(self, indices), weights)

    def examples(self, count: int) -> tuple[jax.Array, jax.Array]:
        """Picks images at equal distances, because a split may be sorted by class.

        Args:
          count: the number of images.

        Returns:
          Images uint8 [count, h, w, c] and labels int32 [count].
        """
        chosen = np.linspace(0, self.size - 1, count).astype(int)
        return _rows(self, chosen)


@dataclasses.dataclass(frozen=True)
class Streamed:
    """One split on the host, whose images are decoded when a batch needs them.

    Attributes:
      source: the images.
      image_size: the side to which they are resized, in pixels.
      workers: processes that decode; 0 decodes in threads of this process.
      flip: whether a mirrored image keeps its label.
    """

    source: Source
    image_size: int
    workers: int
    flip: bool

    @property
    def size(self) -> int:
        """The number of images."""
        return len(self.source)

    def train_batches(self, batch_size: int, augmented: tuple[bool, ...], *, seed: int, step: int) -> DeviceStream:
        """Streams the batches of each iteration, a pure function of seed and iteration.

        Args:
          batch_size: images in a batch.
          augmented: for each pass, whether it is augmented. An augmented pass gets images larger than `image_size`,
            which `crop` crops.
          seed: the seed of the order of the images.
          step: the first iteration.

        Returns:
          An iterator over tuples with one batch for each pass.
        """
        stream = train_stream(
            self.source,
            image_size=self.image_size,
            batch_size=batch_size,
            augmented=augmented,
            seed=seed,
            process=jax.process_index(),
            processes=jax.process_count(),
            workers=self.workers,
        )
        stream.set_state(stream.get_state() | {"next_batch": step})
        return DeviceStream(stream, sharding.batch_sharding())

    def eval_batches(self, batch_size: int) -> Generator[EvalBatch, None, None]:
        """Yields every image once, without augmentation, in batches of one shape; the last one is padded.

        Args:
          batch_size: images in a batch.

        Yields:
          Images uint8 [b, h, w, c], labels int32 [b], and weights [b], which are 0 for padding.
        """
        stream = eval_stream(
            self.source,
            image_size=self.image_size,
            batch_size=batch_size,
            process=jax.process_index(),
            processes=jax.process_count(),
            workers=self.workers,
        )
        with DeviceStream(stream, sharding.batch_sharding()) as batches:
            # On the devices they are jax arrays.
            yield from cast(Iterator[EvalBatch], batches)

    def examples(self, count: int) -> tuple[jax.Array, jax.Array]:
        """Picks images at equal distances, because a split may be sorted by class.

        Args:
          count: the number of images.

        Returns:
          Images uint8 [count, h, w, c] and labels int32 [count].
        """
        chosen = [self.source[int(i)] for i in np.linspace(0, self.size - 1, count)]
        images = np.stack([resize(image, self.image_size) for image, _ in chosen])
        return jnp.asarray(images), jnp.asarray([label for _, label in chosen])


Split = Resident | Streamed


def iterations_of(data: Split, batch_size: int) -> int:
    """The iterations of an epoch; images that do not fill a batch are left out."""
    return data.size // batch_size


def take(data: Resident, indices: jax.Array, rng: jax.Array, *, augmented: bool) -> Batch:
    """Takes a batch from a split on the device.

    Args:
      data: the split.
      indices: int [b], the images to take.
      rng: the key of augmentation.
      augmented: whether images are cropped and flipped at random.

    Returns:
      Images uint8 [b, h, w, c] and labels int32 [b].

    Raises:
      ValueError: the batch is to be augmented, and the split has no larger images.
    """
    if augmented:
        if data.large is None:
            raise ValueError("an augmented pass needs the larger images, which this split does not carry")
        images = sharding.split_batch(data.large[indices])
    else:
        images = data.images[indices]
    labels = sharding.split_batch(data.labels[indices])
    return crop((images, labels), rng, augmented=augmented, size=data.images.shape[1], flip=data.flip)


def crop(batch: Batch, rng: jax.Array, *, augmented: bool, size: int, flip: bool) -> Batch:
    """Crops and flips a batch at random, if it is to be augmented.

    Args:
      batch: images uint8 [b, h, w, c] and labels int32 [b].
      rng: the key of augmentation.
      augmented: whether images are cropped and flipped; otherwise the batch stays as it is.
      size: the side of the cropped images, in pixels.
      flip: whether images may be mirrored.

    Returns:
      The batch, split over the devices.
    """
    images, labels = batch
    if augmented:
        images = augment.random_crop_flip(images, rng, size=size, flip=flip)
    return sharding.split_batch((images, labels))


def sample(
    data: Split, *, augmented: bool, batch_size: int, count: int, key: jax.Array
) -> Iterator[tuple[Batch, jax.Array]]:
    """Draws training batches, as a pure function of `key`.

    As in training, each epoch uses an image at most once and drops the images that do not fill a batch.

    Args:
      data: the split.
      augmented: whether images are cropped and flipped at random.
      batch_size: images in a batch.
      count: the number of batches.
      key: the key of everything random.

    Yields:
      A batch, and a key for its forward pass.
    """
    order_key, draw_key = jax.random.split(key)
    if isinstance(data, Resident):
        per_epoch = iterations_of(data, batch_size)
        for i in range(count):
            if i % per_epoch == 0:
                order = _order(order_key, i // per_epoch, n=data.size, batch_size=batch_size)
            rng, forward_rng = _keys(draw_key, i)
            yield _take(data, order, i % per_epoch, rng, augmented=augmented), forward_rng
        return
    seed = int(jax.random.randint(order_key, (), 0, 2**31 - 1))
    with data.train_batches(batch_size, (augmented,), seed=seed, step=0) as batches:
        for i in range(count):
            rng, forward_rng = _keys(draw_key, i)
            (batch,) = next(batches)
            yield _crop(batch, rng, augmented=augmented, size=data.image_size, flip=data.flip), forward_rng


_order = functools.partial(jax.jit, static_argnames=("n", "batch_size"))(epoch_order)


@jax.jit
def _keys(key: jax.Array, number: int) -> tuple[jax.Array, jax.Array]:
    """The keys of a batch: of its crops, and of its forward pass."""
    first, second = jax.random.split(jax.random.fold_in(key, number))
    return first, second


@functools.partial(jax.jit, static_argnames="augmented")
def _take(data: Resident, order: jax.Array, step: int, rng: jax.Array, *, augmented: bool) -> Batch:
    return take(data, jax.lax.dynamic_index_in_dim(order, step, keepdims=False), rng, augmented=augmented)


_crop = functools.partial(jax.jit, static_argnames=("augmented", "size", "flip"))(crop)


@jax.jit
def _rows(data: Resident, indices: jax.Array) -> Batch:
    """Images without augmentation, and labels, in a number that devices need not share evenly."""
    return data.images[indices], data.labels[indices]


@jax.jit
def _take_padded(data: Resident, indices: jax.Array) -> Batch:
    """Images without augmentation, and labels, for evaluation."""
    return sharding.split_batch((jnp.take(data.images, indices, axis=0), data.labels[indices]))
