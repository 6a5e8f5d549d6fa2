"""Images that are too large: refused by their headers, or decoded at a part of their size."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.data.image_files import COLORS, encode, photo, row
from vpns_jax.data.decode import UnreadableImageError, decode_image, read_image
from vpns_jax.data.decoding import Decoding


def test_heic_has_the_same_limits_as_all_others():
    data = photo()
    with pytest.raises(UnreadableImageError, match=r"96 x 64 pixels are more than data\.max_megapixels = 0\.001"):
        decode_image(data, Decoding(max_megapixels=0.001))
    for end in (40, len(data) // 2, len(data) - 20):
        with pytest.raises(UnreadableImageError) as caught:
            decode_image(data[:end])
        assert "\n" not in str(caught.value)
    # Pillow's own list of formats stays as it is.
    assert "HEIF" not in Image.OPEN


def png(width: int, height: int, bits: int = 8) -> bytes:
    """A gray PNG whose header promises that size, with nearly no pixels."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0),
        b"IDAT": zlib.compress(bytes(9)),
        b"IEND": b"",
    }
    packed = [
        struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def promised(kind: str, before: bytes, layout: str, *size: int, **options) -> bytes:
    """A small image whose header claims another size, which stands after the bytes `before`."""
    data = bytearray(encode(Image.new("RGB", (8, 8)), kind, **options))
    struct.pack_into(layout, data, data.index(before) + len(before), *size)
    return bytes(data)


# A tag's number, type (long) and count, and then its value; type, count and value again for the next.
TIFF_SIZE = struct.pack("<HHI", 256, 4, 1)
BOMBS = {
    # Pillow lets the first pass with a warning, and refuses the second by a limit of its own.
    "16-bit PNG": png(13300, 13300, bits=16),
    "PNG": png(100_000, 100_000),
    "BMP": promised("BMP", struct.pack("<I", 40), "<ii", 10_000, 10_000),
    "GIF": promised("GIF", b"GIF87a", "<HH", 60_000, 60_000),
    "PPM": b"P5 90000 90000 255\n" + bytes(99),
    "TIFF": promised("TIFF", TIFF_SIZE, "<IHHII", 60_000, 257, 4, 1, 60_000),
    "WebP": promised("WEBP", b"\x2f", "<I", 11_999 | 11_999 << 14, lossless=True),
    "progressive JPEG": promised("JPEG", b"\xff\xc2\0\x11\x08", ">HH", 14_000, 14_000, progressive=True),
    "JPEG": promised("JPEG", b"\xff\xc0\0\x11\x08", ">HH", 65_500, 65_500),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_by_its_header(kind, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", pytest.fail)
    monkeypatch.setattr("PIL.Image.Image.load", pytest.fail)
    with pytest.raises(UnreadableImageError, match=r"\d+ x \d+ pixels are more than data.max_megapixels = 64 allows"):
        decode_image(BOMBS[kind])


def test_the_limit_is_what_is_asked_for():
    image = encode(Image.fromarray(row(16)), "PNG")  # 16 x 96
    assert decode_image(image, Decoding(max_megapixels=1536e-6)).shape == (16, 96, 3)
    with pytest.raises(UnreadableImageError, match=r"96 x 16 pixels .* = 0.001535 allows"):
        decode_image(image, Decoding(max_megapixels=1535e-6))


@pytest.mark.parametrize(
    ("most", "shape"), [(1536, (16, 96)), (1000, (8, 48)), (384, (8, 48)), (383, (4, 24)), (24, (2, 12))]
)
@pytest.mark.parametrize("exif", [False, True])
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(most, shape, exif):
    data = encode(Image.fromarray(row(16)), "JPEG", quality=100, subsampling=0)
    image = read_image(data, Decoding(exif=exif, max_megapixels=most * 1e-6))
    assert image.pixels.shape == (*shape, 3)
    assert image.reduced == (shape != (16, 96))
    np.testing.assert_allclose(image.pixels[1, shape[0] // 2 :: shape[0]].astype(int), COLORS, atol=8)


def test_a_jpeg_above_eight_times_the_side_is_refused():
    data = encode(Image.fromarray(row(16)), "JPEG")
    with pytest.raises(UnreadableImageError, match=r"more than data\.max_megapixels"):
        decode_image(data, Decoding(max_megapixels=23e-6))


@pytest.mark.parametrize(("most", "shape"), [(6144, (64, 96)), (6143, (32, 48)), (1000, (16, 24))])
def test_a_large_jpeg_2000_is_decoded_at_a_part_of_its_size(most, shape):
    image = read_image(encode(Image.fromarray(row(64)[:, :96]), "JPEG2000"), Decoding(max_megapixels=most * 1e-6))
    assert image.pixels.shape == (*shape, 3)
    assert image.reduced == (shape != (64, 96))
    np.testing.assert_allclose(image.pixels[0, [0, -1]].astype(int), COLORS[:2], atol=2)


@pytest.mark.parametrize("size", [(97, 64), (96, 65)])
def test_a_large_jpeg_2000_of_odd_size_is_refused(size):
    with pytest.raises(UnreadableImageError, match=r"more than data\.max_megapixels"):
        decode_image(encode(Image.new("RGB", size), "JPEG2000"), Decoding(max_megapixels=6143e-6))


def test_no_warning_of_pillows_reaches_the_user(recwarn):
    # Between Pillow's limit, where it warns, and twice that, where it refuses.
    assert decode_image(encode(Image.new("L", (9500, 9500)), "JPEG")).shape == (4750, 4750, 3)
    assert not recwarn.list
