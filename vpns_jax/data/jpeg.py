"""What only JPEGs need: decoding at a part of their size, and doing without their last two bytes."""

from collections.abc import Callable

from PIL import Image

_SCAN, _END = b"\xff\xda", b"\xff\xd9"
# The scales at which the coefficients of 8 x 8 pixels can be turned into fewer.
_PARTS = (2, 4, 8)
# A progressive JPEG is held as coefficients of its full size, six bytes a pixel, whatever the scale.
_MOST_PROGRESSIVE = 3


def part(image: Image.Image, most: float) -> int | None:
    """Which part of its size brings an image to at most `most` pixels: 2 is a half; None if no part does."""
    w, h = image.size
    if image.info.get("progressive") and w * h > _MOST_PROGRESSIVE * most:
        return None
    return next((one for one in _PARTS if -(-w // one) * -(-h // one) <= most), None)


def lacks_end(data: bytes) -> bool:
    """Whether a JPEG's last scan goes on to the end of the file, with no end marker after it."""
    return _END not in data[data.rfind(_SCAN) :]


def with_end(data: bytes, decode: Callable[[bytes], Image.Image]) -> Image.Image | None:
    """Decodes a JPEG that lacks its end marker, if it lacks nothing else.

    Given any end marker, a decoder takes whatever it has for the whole, and leaves the rest of the picture grey. So
    two different strings are set before the marker: if picture is missing, they are read as picture, and differ.

    Args:
      data: a JPEG that `lacks_end`.
      decode: makes an image of bytes, decoded.

    Returns:
      The image; None if pixels are missing, too.
    """
    # A download that broke off may be filled up with zeros, and these would be read as picture.
    scan = data.rstrip(b"\0") if data.endswith(b"\0\0") else data
    # Half a marker may be there; together with what follows it would be another one.
    scan = scan.rstrip(b"\xff")
    first, second = (decode(scan + filler * 16 + _END) for filler in (b"\x55", b"\xaa"))
    return first if first.tobytes() == second.tobytes() else None
