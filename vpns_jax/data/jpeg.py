"""Special treatment of JPEGs: decoding at a part of their size, and decoding without their end marker."""

from collections.abc import Callable

from PIL import Image

_SCAN, _END = b"\xff\xda", b"\xff\xd9"
# The scales at which a decoder can turn the coefficients of a block of 8 x 8 pixels into fewer pixels.
_PARTS = (2, 4, 8)
# A progressive JPEG's coefficients are held in memory at full size, six bytes a pixel, whatever the scale.
_MOST_PROGRESSIVE = 3


def part(image: Image.Image, most: float) -> int | None:
    """The divisor of a JPEG's size (2 is a half) that leaves at most `most` pixels; None if no divisor does."""
    w, h = image.size
    if image.info.get("progressive") and w * h > _MOST_PROGRESSIVE * most:
        return None
    return next((divisor for divisor in _PARTS if -(-w // divisor) * -(-h // divisor) <= most), None)


def lacks_end(data: bytes) -> bool:
    """Whether a JPEG has no end marker after its last scan."""
    return _END not in data[data.rfind(_SCAN) :]


def with_end(data: bytes, decode: Callable[[bytes], Image.Image]) -> Image.Image | None:
    """Decodes a JPEG that lacks its end marker, if no pixels are missing.

    If a marker is added to a truncated file, a decoder reports no error and leaves the missing pixels gray. So the file
    is decoded twice, with two different strings before the marker: if pixels are missing, the strings are decoded as
    pixels, and the two images differ.

    Args:
      data: a JPEG for which `lacks_end` is true.
      decode: a function that decodes bytes to an image.

    Returns:
      The image; None if pixels are missing.
    """
    # An interrupted download may be filled up with zeros, which would be decoded as pixels.
    scan = data.rstrip(b"\0") if data.endswith(b"\0\0") else data
    # The file may end with the first half of a marker, which would form another marker with the next byte.
    scan = scan.rstrip(b"\xff")
    first, second = (decode(scan + filler * 16 + _END) for filler in (b"\x55", b"\xaa"))
    return first if first.tobytes() == second.tobytes() else None
