"""Augmentation on the device: pure functions of uint8 images and a random key."""

import jax
import jax.numpy as jnp


def to_float(images: jax.Array) -> jax.Array:
    """Converts images to RGB floats in [0, 1]; a gray channel is copied to all three channels.

    Args:
      images: uint8 `[b, h, w, c]`, c in {1, 3}.

    Returns:
      float32 `[b, h, w, 3]`.

    Raises:
      ValueError: the images have another dtype or number of channels.
    """
    if images.dtype != jnp.uint8 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images must be uint8 with 1 or 3 channels, found {images.dtype} and {images.shape[-1]} channels"
        )
    x = images.astype(jnp.float32) / 255
    return jnp.broadcast_to(x, (*x.shape[:3], 3)) if x.shape[-1] == 1 else x


def random_crop_flip(images: jax.Array, rng: jax.Array, *, size: int, flip: bool) -> jax.Array:
    """Crops each image at its own random place and, if `flip`, mirrors it with probability 1/2.

    Args:
      images: uint8 `[b, H, W, c]`, H and W at least `size`.
      rng: a random key.
      size: side of the crops in pixels.
      flip: whether to mirror images horizontally.

    Returns:
      uint8 `[b, size, size, c]`.

    Raises:
      ValueError: the images are smaller than the crop.
    """
    b, height, width, c = images.shape
    if size > min(height, width):
        raise ValueError(f"a crop of {size} px from images of {height} x {width}")
    row_key, column_key, flip_key = jax.random.split(rng, 3)
    crops = images
    if size < max(height, width):
        rows = jax.random.randint(row_key, (b,), 0, height - size + 1)
        columns = jax.random.randint(column_key, (b,), 0, width - size + 1)
        crop = jax.vmap(lambda image, row, column: jax.lax.dynamic_slice(image, (row, column, 0), (size, size, c)))
        crops = crop(images, rows, columns)
    if not flip:
        return crops
    mirrored = jax.random.bernoulli(flip_key, 0.5, (b,))
    return jnp.where(mirrored[:, None, None, None], crops[:, :, ::-1], crops)


def resize_bilinear(images: jax.Array, size: int) -> jax.Array:
    """Resizes to squares as PIL's antialiased bilinear filter does, up to differences of 1/255: PIL rounds twice.

    Args:
      images: float `[b, h, w, c]`.
      size: side of the result in pixels; the aspect ratio is not kept.

    Returns:
      Float `[b, size, size, c]`.
    """
    b, _, _, c = images.shape
    return jax.image.resize(images, (b, size, size, c), "bilinear", antialias=True)
