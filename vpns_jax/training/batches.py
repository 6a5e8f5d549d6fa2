"""Batches of a data set that lives on the device as uint8: shuffled, cropped and flipped there."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from vpns_jax import sharding
from vpns_jax.data import augment
from vpns_jax.training.steps import Batch, Pass

PyTree = Any


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


def take(data: Resident, one: Pass, indices: jax.Array, rng: jax.Array) -> Batch:
    """The images and labels that `indices` [b] names, augmented if the pass asks for it."""
    if one.augmented:
        if data.large is None:
            raise ValueError("an augmented pass needs the larger images, which this split does not carry")
        images = augment.random_crop_flip(
            sharding.split_batch(data.large[indices]), rng, size=data.images.shape[1], flip=data.flip
        )
    else:
        images = data.images[indices]
    return sharding.split_batch((images, data.labels[indices]))


@jax.jit
def take_padded(data: Resident, indices: jax.Array) -> Batch:
    """Un-augmented images and labels for evaluation."""
    return sharding.split_batch((jnp.take(data.images, indices, axis=0), data.labels[indices]))
