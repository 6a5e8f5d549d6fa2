"""JPEG 2000 stores an image in several resolutions, and can be decoded at a part of its size."""

from PIL import Image

# Encoders store six resolutions unless they are told otherwise. A file with fewer is unreadable at a smaller part.
_PARTS = (2, 4, 8, 16, 32)


def part(image: Image.Image, most: float) -> int | None:
    """Finds the divisor of a JPEG 2000's size (2 is a half) that leaves at most `most` pixels.

    Only divisors of both sides are taken: for others, Pillow expects another size than the decoder returns.

    Args:
      image: the image, not decoded yet.
      most: how many pixels may be left.

    Returns:
      The divisor; None if no divisor leaves so few.
    """
    w, h = image.size
    divisors = (divisor for divisor in _PARTS if w % divisor == h % divisor == 0)
    return next((divisor for divisor in divisors if (w // divisor) * (h // divisor) <= most), None)
