"""Image files of every kind to RGB."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.data.image_files import COLORS, deep_color, encode, row
from vpns_jax.data import decode
from vpns_jax.data.decode import decode_image, read_image
from vpns_jax.data.decoding import Decoding


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
    np.testing.assert_allclose(image[8, 8::16], COLORS, atol=6)


def test_cmyk_jpeg():
    data = encode(Image.fromarray(row(16)).convert("CMYK"), "JPEG", quality=100)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    np.testing.assert_allclose(decode_image(data)[8, 8::16].astype(int), COLORS, atol=6)


def test_gray_becomes_three_channels():
    gray = np.array([[0, 100, 255]], np.uint8)
    expected = gray[..., None].repeat(3, -1)
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(gray), "PNG")), expected)
    assert decode_image(encode(Image.fromarray(gray), "JPEG")).shape == (1, 3, 3)
    bits = Image.fromarray(np.array([[True, False]]))
    np.testing.assert_array_equal(decode_image(encode(bits, "PNG"))[..., 0], [[255, 0]])


def test_sixteen_bits_are_scaled_not_cut_off():
    deep = Image.fromarray(np.array([[0, 0x00FF, 0x8000, 0xFFFF]], np.uint16))
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode_image(encode(deep, kind))[..., 0], [[0, 0, 128, 255]])


@pytest.mark.parametrize(
    ("levels", "grey_range", "expected"),
    [
        # Twelve bits: the upper eight are taken.
        ([0, 16, 2048, 4095], (0, 4095), [0, 1, 128, 255]),
        # Eight bits in a 16-bit file: as they are.
        ([0, 1, 127, 255], (0, 255), [0, 1, 127, 255]),
        # From 1000 to 1511 two levels share a bin; levels outside become black or white.
        ([0, 1000, 1001, 1002, 1511, 9999], (1000, 1511), [0, 0, 0, 1, 255, 255]),
        ([7, 8], (7, 8), [0, 128]),
        ([0, 0x00FF, 0x8000, 0xFFFF], (0, 0xFFFF), [0, 0, 128, 255]),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_range_of_greys(kind, levels, grey_range, expected):
    data = encode(Image.fromarray(np.array([levels], np.uint16)), kind)
    image = read_image(data, Decoding(grey_range=grey_range))
    np.testing.assert_array_equal(image.pixels[0], np.array(expected)[:, None].repeat(3, 1))
    assert image.greys == (levels[0], levels[-1])
    # The range does not apply to 8-bit images.
    plain = read_image(encode(Image.fromarray(np.array([[0, 100]], np.uint8)), kind), Decoding(grey_range=grey_range))
    np.testing.assert_array_equal(plain.pixels[0, :, 0], [0, 100])
    assert plain.greys is None


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_of_deep_color_the_upper_bits_are_read_and_that_is_noted(channels):
    image = read_image(deep_color([0, 15, 256, 4095], channels), Decoding(grey_range=(0, 4095)))
    np.testing.assert_array_equal(image.pixels[0], np.array([0, 0, 1, 15])[:, None].repeat(3, 1))
    assert image.color_peak == 15
    assert image.greys is None
    for eight in (encode(Image.fromarray(row()), "PNG"), encode(Image.fromarray(row()), "TIFF")):
        assert read_image(eight).color_peak is None


def test_palette():
    image = Image.fromarray(row()).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    np.testing.assert_array_equal(decode_image(encode(image, "PNG")), row())
    np.testing.assert_array_equal(decode_image(encode(image, "GIF")), row())


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_shows_white(kind):
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    decoded = decode_image(encode(Image.fromarray(pixels), kind, **options)).astype(int)
    # Opaque red; fully transparent; half transparent black: 255 * 127 / 255.
    np.testing.assert_allclose(decoded, [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]], atol=1)


def test_gray_with_alpha_and_palette_with_transparency():
    gray = Image.merge("LA", [Image.new("L", (2, 1), 10), Image.fromarray(np.array([[255, 0]], np.uint8))])
    np.testing.assert_array_equal(decode_image(encode(gray, "PNG"))[0, :, 0], [10, 255])

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    # One entry by number, and a table of alphas: PNG knows both.
    for transparency in (1, bytes([255, 0])):
        decoded = decode_image(encode(palette, "PNG", transparency=transparency))
        np.testing.assert_array_equal(decoded, [[[10, 20, 30], [255, 255, 255]]])


def test_of_an_animation_the_first_frame():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP"):
        decoded = decode_image(encode(frames[0], kind, save_all=True, append_images=frames[1:]))
        np.testing.assert_allclose(decoded.astype(int), np.full((4, 4, 3), [255, 0, 0]), atol=3)


def test_avif_is_no_heic():
    data = encode(Image.fromarray(row(16)), "AVIF", quality=100)
    np.testing.assert_allclose(decode_image(data)[8, 8::16].astype(int), COLORS, atol=6)


def test_sixteen_bit_gray_with_a_transparent_level_shows_white_there():
    deep = Image.fromarray(np.array([[0, 0x1234, 0x8000, 0x8001]], np.uint16))
    data = encode(deep, "PNG", transparency=0x8000)
    np.testing.assert_array_equal(decode_image(data)[0, :, 0], [0, 0x12, 255, 128])


def test_a_pillow_without_avif_reads_the_other_kinds(monkeypatch):
    """Pillow before 11.3 does not know AVIF."""
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF")
    data = encode(Image.fromarray(row(16)), "JPEG2000")
    np.testing.assert_array_equal(decode_image(data), row(16))
    with pytest.raises(decode.UnreadableImageError, match=r"^not an image of a known kind$"):
        decode_image(b"nothing")


def test_all_kinds_are_pillows():
    Image.init()
    assert set(decode.KINDS) <= set(Image.OPEN)
