"""Crops, flips, conversion and resize on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vpns_jax.data import augment


def numbered(b: int, h: int, w: int) -> np.ndarray:
    """uint8 `[b, h, w, 1]`; the value of a pixel is 16 * row + column."""
    image = 16 * np.arange(h)[:, None] + np.arange(w)[None]
    return np.broadcast_to(image[None, :, :, None], (b, h, w, 1)).astype(np.uint8)


CROP = jax.jit(augment.random_crop_flip, static_argnames=("size", "flip"))


@pytest.mark.parametrize("flip", [False, True])
def test_crops_are_windows_of_the_image(flip):
    images = numbered(200, 9, 9)
    crops = np.asarray(CROP(images, jax.random.key(0), size=8, flip=flip))
    assert crops.shape == (200, 8, 8, 1)
    assert crops.dtype == np.uint8
    seen = set()
    for crop in crops[..., 0]:
        mirrored = crop[0, 0] > crop[0, 1]
        unflipped = crop[:, ::-1] if mirrored else crop
        row, column = divmod(int(unflipped[0, 0]), 16)
        np.testing.assert_array_equal(unflipped, images[0, row : row + 8, column : column + 8, 0])
        seen.add((row, column, bool(mirrored)))
    # Among 200 images all four places occur, and mirrored crops if and only if `flip` is set.
    assert len(seen) == (8 if flip else 4)


@pytest.mark.slow
def test_crop_is_a_function_of_the_key_and_jits():
    images = jnp.asarray(numbered(16, 12, 12))
    once = np.asarray(CROP(images, jax.random.key(1), size=8, flip=True))
    np.testing.assert_array_equal(once, augment.random_crop_flip(images, jax.random.key(1), size=8, flip=True))
    assert (once != np.asarray(CROP(images, jax.random.key(2), size=8, flip=True))).any()


def test_crop_of_the_whole_is_the_image():
    images = numbered(3, 8, 8)
    np.testing.assert_array_equal(CROP(images, jax.random.key(0), size=8, flip=False), images)


def test_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="crop of 9 px from images of 8 x 8"):
        augment.random_crop_flip(jnp.asarray(numbered(1, 8, 8)), jax.random.key(0), size=9, flip=False)


def test_to_float():
    to_float = jax.jit(augment.to_float)
    gray = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)
    x = np.asarray(to_float(gray))
    assert x.dtype == np.float32
    expected = [[0, 0, 0], [0.2, 0.2, 0.2], [1, 1, 1]]
    np.testing.assert_allclose(x[0, 0], np.array(expected, np.float32), rtol=1e-6)
    color = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(np.asarray(to_float(color))[0, 0, 0], np.array([0, 0.2, 1], np.float32), rtol=1e-6)
    with pytest.raises(ValueError, match="4 channels"):
        augment.to_float(np.zeros((1, 1, 1, 4), np.uint8))


def test_to_float_takes_only_bytes():
    with pytest.raises(ValueError, match="float32"):
        augment.to_float(np.zeros((1, 1, 1, 3), np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 8), (37, 64), (90, 50), (224, 200)])
@pytest.mark.parametrize("size", [7, 32, 64])
def test_resize_agrees_with_pil(shape, size):
    rng = np.random.default_rng(0)
    # Noise, and a hard edge that saturates.
    for image in (rng.integers(0, 256, (*shape, 3)), np.eye(*shape)[..., None] * np.full(3, 255)):
        image = image.astype(np.uint8)
        pil = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
        ours = augment.resize_bilinear(image[None].astype(np.float32) / 255, size)
        assert ours.shape == (1, size, size, 3)
        # PIL rounds after each of its two passes, by up to half a level; the remaining difference is float32's.
        np.testing.assert_allclose(np.asarray(ours)[0], pil / 255, atol=1 / 255 + 1e-5, rtol=0)


def test_resize_to_the_same_size_changes_nothing():
    images = numbered(2, 8, 8).astype(np.float32) / 255
    np.testing.assert_allclose(augment.resize_bilinear(images, 8), images, atol=1e-6)
