"""Image files that tests make: of every kind, with notes, broken, cut off, or of a phone."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

# Six pixels in a row, wide apart; JPEG gets them as blocks of 8 x 8.
COLORS = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 160, 220]], np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def row(scale: int = 1) -> np.ndarray:
    """uint8 [scale, 6 * scale, 3]."""
    return COLORS[None].repeat(scale, 0).repeat(scale, 1)


def deep_color(levels: list[int], channels: int) -> bytes:
    """A PNG of one row with the same 16-bit level in all its channels: gray with alpha, RGB or RGBA."""
    row = np.array(levels, ">u2")[:, None].repeat(channels, 1)
    if channels != 3:
        row[:, -1] = 0xFFFF
    header = struct.pack(">IIBBBBB", len(levels), 1, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + row.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


# For each of EXIF's orientations where the stored pixels 0 1 2 / 3 4 5 belong, by the standard's own words: "row 0 is
# the visual ... , column 0 the visual ...".
UPRIGHT = {
    1: [[0, 1, 2], [3, 4, 5]],  # top, left
    2: [[2, 1, 0], [5, 4, 3]],  # top, right
    3: [[5, 4, 3], [2, 1, 0]],  # bottom, right
    4: [[3, 4, 5], [0, 1, 2]],  # bottom, left
    5: [[0, 3], [1, 4], [2, 5]],  # left, top
    6: [[3, 0], [4, 1], [5, 2]],  # right, top
    7: [[5, 2], [4, 1], [3, 0]],  # right, bottom
    8: [[2, 5], [1, 4], [0, 3]],  # left, bottom
}
STORED = 40 * np.array(UPRIGHT[1], np.uint8)


def noted(kind: str, orientation: int, **options) -> bytes:
    """STORED with an orientation in EXIF, in blocks of 16 x 16, which lossy kinds preserve."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(Image.fromarray(STORED.repeat(16, 0).repeat(16, 1)), kind, exif=exif, **options)


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


BROKEN = {
    "empty": (b"", "empty"),
    "text": (b"this is not an image, whatever it is called", "not an image"),
    "html": (b"<!DOCTYPE html><html>404</html>", "not an image"),
    "cut JPEG": (encode(noise(), "JPEG")[:-900], "truncated"),
    "cut PNG": (encode(noise(), "PNG")[:-900], "truncated|broken"),
    "cut WebP": (encode(noise(), "WEBP")[:-900], "could not create decoder"),
    "PNG of another checksum": (encode(noise(), "PNG").replace(b"IDAT", b"IDAT\0", 1), "broken data stream"),
    "only a header": (encode(noise(), "PNG")[:33], "requires a buffer"),
    "floats": (encode(Image.fromarray(np.full((2, 2), 0.5, np.float32)), "TIFF"), "floats"),
    "32 bits": (encode(Image.fromarray(np.full((2, 2), 1 << 20, np.int32)), "TIFF"), "no known range"),
}


def heic(brand: bytes = b"heic", *others: bytes) -> bytes:
    """The first bytes of a phone's HEIC image; more are not read."""
    box = b"ftyp" + brand + bytes(4) + b"".join(others)
    return struct.pack(">I", len(box) + 4) + box + bytes(100)


def photo(orientation: int = 1) -> bytes:
    """STORED as a phone saves it; skips the test where there is no pillow-heif."""
    pillow_heif = pytest.importorskip("pillow_heif")
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image = pillow_heif.from_pillow(Image.fromarray(STORED.repeat(32, 0).repeat(32, 1)).convert("RGB"))
    image.save(file, quality=90, exif=exif.tobytes())
    return file.getvalue()
