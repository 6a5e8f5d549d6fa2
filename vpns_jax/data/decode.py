"""One image file, whatever its kind, to RGB."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

# What sixteen bits mean in a greyscale PNG or TIFF: Pillow would cut off above 255 instead of scaling.
_SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class UnreadableImageError(ValueError):
    """A file that is no image, or a broken one; the message says why."""


def decode_image(data: bytes) -> np.ndarray:
    """Decodes JPEG, PNG, WebP and whatever else Pillow reads; of an animation, the first frame.

    Grey, palette and CMYK images become RGB, 16 bits become 8, and what is transparent shows a white ground. Pixels
    are as stored: a camera's note on orientation (EXIF) is left aside, as other readers of these data sets do.

    Args:
      data: the file's bytes.

    Returns:
      uint8 [h, w, 3].

    Raises:
      UnreadableImageError: the bytes cannot be decoded to the last pixel.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(_to_rgb(image))
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image of a known kind" if data else "the file is empty") from error
    # Broken files make decoders raise nearly anything: OSError, SyntaxError, struct.error, DecompressionBombError...
    except Exception as error:
        raise UnreadableImageError(" ".join(f"{type(error).__name__}: {error}".split())) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode in _SIXTEEN_BITS:
        levels = np.asarray(image, dtype=np.int64)
        low, high = np.min(levels), np.max(levels)
        if low < 0 or high > 0xFFFF:
            raise ValueError(f"pixels from {low} to {high}, of no known range")
        return Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels are floats, of no known range")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")
