"""HEIC images, the format of many phones: pillow-heif decodes them if it is installed."""

import importlib.util
import io

from PIL import ImageFile

MISSING = (
    "a HEIC image, which needs pillow-heif: pip install 'vpns_jax[heic]'; or convert it to JPEG, for example with "
    "ImageMagick: magick mogrify -format jpg *.HEIC"
)


def is_heic(data: bytes) -> bool:
    """Whether a file is HEIC, according to the brands in its first 64 bytes.

    Args:
      data: the bytes of a file.

    Returns:
      True or False.
    """
    brands = {data[i : i + 4] for i in range(8, min(len(data), 64), 4)}
    return data[4:8] == b"ftyp" and not brands & {b"avif", b"avis"} and any(b[:2] == b"he" for b in brands)


def readable() -> bool:
    """Whether pillow-heif is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def open_heic(data: bytes) -> ImageFile.ImageFile:
    """Opens a HEIC image; only its header is read. Needs pillow-heif.

    Args:
      data: the bytes of the file.

    Returns:
      The image, not decoded yet. Its rotation is a part of the format, so it is always applied.
    """
    import pillow_heif

    return pillow_heif.HeifImageFile(io.BytesIO(data))
