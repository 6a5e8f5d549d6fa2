"""Batches of a split: from arrays that live on the device, or from the host as they are needed.

A split that fits lives on the device as uint8 and is shuffled, cropped and flipped there. A larger one is decoded on
the host, ahead of time; it is cropped and flipped on the device all the same.
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
# Images, labels and weights, which are zero for padding.
EvalBatch = tuple[jax.Array, jax.Array, jax.Array]


@struct.dataclass
class Resident:
    """One split on the device.

    Attributes:
      images: uint8 [n, h, w, c], resized to the network's image size: un-augmented passes and evaluation.
      large: uint8 [n, H, W, c], a little larger: what augmented passes crop from. None where nothing trains on it.
      labels: int32 [n].
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
        """Every image once, un-augmented; all batches of one shape, the last one padded."""
        for indices, weights in zip(*padded_batches(self.size, batch_size), strict=True):
            yield (*_take_padded(self, indices), weights)

    def examples(self, count: int) -> tuple[jax.Array, jax.Array]:
        """Images uint8 [count, h, w, c] and labels from all over the split, which may be sorted by class."""
        chosen = np.linspace(0, self.size - 1, count).astype(int)
        return self.images[chosen], self.labels[chosen]


@dataclasses.dataclass(frozen=True)
class Streamed:
    """One split on the host, its images decoded when a batch needs them.

    Attributes:
      source: the images.
      image_size: their side once resized.
      workers: processes that decode; with 0, threads of this one do.
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
        """For each iteration from `step` on, the images and labels of each pass: a pure function of seed and step.

        Args:
          batch_size: images in a batch.
          augmented: for each pass, whether it is augmented; then it gets its images larger than `image_size`, to be
            cropped by `crop`.
          seed: of the order of the images.
          step: the first iteration.
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
        """Every image once, un-augmented; all batches of one shape, the last one padded."""
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
        """Images uint8 [count, h, w, c] and labels from all over the split, which may be sorted by class."""
        chosen = [self.source[int(i)] for i in np.linspace(0, self.size - 1, count)]
        images = np.stack([resize(image, self.image_size) for image, _ in chosen])
        return jnp.asarray(images), jnp.asarray([label for _, label in chosen])


Split = Resident | Streamed


def take(data: Resident, indices: jax.Array, rng: jax.Array, *, augmented: bool) -> Batch:
    """The images and labels that `indices` [b] names, cropped and flipped by lot if they are to be augmented."""
    if augmented:
        if data.large is None:
            raise ValueError("an augmented pass needs the larger images, which this split does not carry")
        images = sharding.split_batch(data.large[indices])
    else:
        images = data.images[indices]
    labels = sharding.split_batch(data.labels[indices])
    return crop((images, labels), rng, augmented=augmented, size=data.images.shape[1], flip=data.flip)


def crop(batch: Batch, rng: jax.Array, *, augmented: bool, size: int, flip: bool) -> Batch:
    """A batch cropped to `size` and flipped by lot if it is to be augmented, as it is if not."""
    images, labels = batch
    if augmented:
        images = augment.random_crop_flip(images, rng, size=size, flip=flip)
    return sharding.split_batch((images, labels))


def sample(
    data: Split, *, augmented: bool, batch_size: int, count: int, key: jax.Array
) -> Iterator[tuple[Batch, jax.Array]]:
    """`count` training batches, each with a key for the forward pass: a pure function of `key`.

    No image comes twice before all have come, but for the remainder that fills no batch.
    """
    order_key, draw_key = jax.random.split(key)
    if isinstance(data, Resident):
        per_epoch, order = data.size // batch_size, None
        for i in range(count):
            if order is None or i % per_epoch == 0:
                order = epoch_order(order_key, i // per_epoch, data.size, batch_size)
            rng, forward_rng = jax.random.split(jax.random.fold_in(draw_key, i))
            yield _take(data, order[i % per_epoch], rng, augmented=augmented), forward_rng
        return
    seed = int(jax.random.randint(order_key, (), 0, 2**31 - 1))
    with data.train_batches(batch_size, (augmented,), seed=seed, step=0) as batches:
        for i in range(count):
            rng, forward_rng = jax.random.split(jax.random.fold_in(draw_key, i))
            (batch,) = next(batches)
            yield _crop(batch, rng, augmented=augmented, size=data.image_size, flip=data.flip), forward_rng


_take = functools.partial(jax.jit, static_argnames="augmented")(take)
_crop = functools.partial(jax.jit, static_argnames=("augmented", "size", "flip"))(crop)


@jax.jit
def _take_padded(data: Resident, indices: jax.Array) -> Batch:
    """Un-augmented images and labels for evaluation."""
    return sharding.split_batch((jnp.take(data.images, indices, axis=0), data.labels[indices]))
