"""Image files of every kind to RGB."""

import io

import numpy as np
import pytest
from PIL import Image

from vpns_jax.data.decode import UnreadableImageError, decode_image

# Six pixels in a row, wide apart; JPEG gets them as blocks of 8 x 8.
COLOURS = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 160, 220]], np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def row(scale: int = 1) -> np.ndarray:
    """uint8 [scale, 6 * scale, 3]."""
    return COLOURS[None].repeat(scale, 0).repeat(scale, 1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True}), ("PPM", {})],
)
def test_lossless_kinds_are_exact(kind, options):
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(row()), kind, **options)), row())


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 100, "subsampling": 0}), ("WEBP", {"quality": 100})]
)
def test_lossy_kinds_are_close(kind, options):
    image = decode_image(encode(Image.fromarray(row(16)), kind, **options)).astype(int)
    np.testing.assert_allclose(image[8, 8::16], COLOURS, atol=6)


def test_cmyk_jpeg():
    data = encode(Image.fromarray(row(16)).convert("CMYK"), "JPEG", quality=100)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    np.testing.assert_allclose(decode_image(data)[8, 8::16].astype(int), COLOURS, atol=6)


def test_grey_becomes_three_channels():
    grey = np.array([[0, 100, 255]], np.uint8)
    expected = grey[..., None].repeat(3, -1)
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(grey), "PNG")), expected)
    assert decode_image(encode(Image.fromarray(grey), "JPEG")).shape == (1, 3, 3)
    bits = Image.fromarray(np.array([[True, False]]))
    np.testing.assert_array_equal(decode_image(encode(bits, "PNG"))[..., 0], [[255, 0]])


def test_sixteen_bits_are_scaled_not_cut_off():
    deep = Image.fromarray(np.array([[0, 0x00FF, 0x8000, 0xFFFF]], np.uint16))
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode_image(encode(deep, kind))[..., 0], [[0, 0, 128, 255]])


def test_palette():
    image = Image.fromarray(row()).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    np.testing.assert_array_equal(decode_image(encode(image, "PNG")), row())
    np.testing.assert_array_equal(decode_image(encode(image, "GIF")), row())


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_shows_white(kind):
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    decoded = decode_image(encode(Image.fromarray(pixels), kind, **options)).astype(int)
    # Opaque red; nothing; black at half: 255 * 127 / 255.
    np.testing.assert_allclose(decoded, [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]], atol=1)


def test_grey_with_alpha_and_palette_with_transparency():
    grey = Image.merge("LA", [Image.new("L", (2, 1), 10), Image.fromarray(np.array([[255, 0]], np.uint8))])
    np.testing.assert_array_equal(decode_image(encode(grey, "PNG"))[0, :, 0], [10, 255])

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    # One entry by number, and a table of alphas: PNG knows both.
    for transparency in (1, bytes([255, 0])):
        decoded = decode_image(encode(palette, "PNG", transparency=transparency))
        np.testing.assert_array_equal(decoded, [[[10, 20, 30], [255, 255, 255]]])


def test_of_an_animation_the_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP"):
        decoded = decode_image(encode(frames[0], kind, save_all=True, append_images=frames[1:]))
        np.testing.assert_allclose(decoded.astype(int), np.full((4, 4, 3), [255, 0, 0]), atol=3)


def test_orientation_is_left_aside():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    data = encode(Image.fromarray(row(8)), "JPEG", exif=exif)
    assert decode_image(data).shape == (8, 48, 3)


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


BROKEN = {
    "empty": (b"", "empty"),
    "text": (b"this is not an image, whatever it is called", "not an image"),
    "html": (b"<!DOCTYPE html><html>404</html>", "not an image"),
    "cut JPEG": (encode(noise(), "JPEG")[:-900], "truncated"),
    "cut PNG": (encode(noise(), "PNG")[:-900], "truncated|broken"),
    "cut WebP": (encode(noise(), "WEBP")[:-900], "."),
    "PNG of another checksum": (encode(noise(), "PNG").replace(b"IDAT", b"IDAT\0", 1), "."),
    "only a header": (encode(noise(), "PNG")[:33], "."),
    "floats": (encode(Image.fromarray(np.full((2, 2), 0.5, np.float32)), "TIFF"), "floats"),
    "32 bits": (encode(Image.fromarray(np.full((2, 2), 1 << 20, np.int32)), "TIFF"), "no known range"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_files_say_why(what):
    data, reason = BROKEN[what]
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        decode_image(data)
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


def test_a_bomb_is_not_inflated():
    # A header that promises 10^10 pixels.
    data = bytearray(encode(Image.new("L", (8, 8)), "PNG"))
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    with pytest.raises(UnreadableImageError):
        decode_image(bytes(data))
