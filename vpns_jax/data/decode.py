"""Decodes one image file of any kind to RGB."""

import dataclasses
import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, Jpeg2KImagePlugin

from vpns_jax.data import heic, jpeg, jpeg2000
from vpns_jax.data.decoding import AS_STORED, FULL_RANGE, Decoding

# Pillow warns of damaged metadata, such as EXIF, when it opens a file. Damaged metadata are ignored here, and a folder
# of them would fill the screen. The filter is set for the process, since `warnings.catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# Kinds that Pillow decodes inside this process. Pillow passes some other kinds to external programs (EPS to
# Ghostscript), whatever the file's suffix is, so they are not read.
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
# Formats that can be decoded at a part of their size: the divisor that leaves so many pixels, or None.
_PART = {"JPEG": jpeg.part, "MPO": jpeg.part, "JPEG2000": jpeg2000.part}
# Pillow's modes for 16-bit grayscale in a PNG or TIFF. Pillow would clip levels above 255 instead of scaling them.
_SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112
# The operation that turns an image upright, for each value of EXIF's orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImageError(ValueError):
    """A file that is no image, or a broken image; the message says why."""


@dataclasses.dataclass(frozen=True, eq=False)
class Decoded:
    """An image, and how it was decoded.

    Attributes:
      pixels: uint8 `[h, w, 3]`.
      greys: the darkest and the brightest of its 16-bit gray levels; None if it has no such levels.
      turned: whether it was turned upright.
      mended: whether it is a JPEG without its end marker.
      reduced: whether it was too large, and decoded at a part of its size.
      color_peak: the brightest of its 8-bit levels if it has 16-bit color, of which the lower bits are dropped; else
        None.
    """

    pixels: np.ndarray
    greys: tuple[int, int] | None = None
    turned: bool = False
    mended: bool = False
    reduced: bool = False
    color_peak: int | None = None


def decode_image(data: bytes, decoding: Decoding = AS_STORED) -> np.ndarray:
    """The pixels of an image file, uint8 `[h, w, 3]`; see `read_image`."""
    return read_image(data, decoding).pixels


def read_image(data: bytes, decoding: Decoding = AS_STORED) -> Decoded:
    """Decodes JPEG, PNG, WebP and the other `KINDS`; an animation's first frame is taken.

    Gray, palette and CMYK images become RGB, 16 bits become 8, and transparent pixels are blended with white.

    Args:
      data: the file's bytes.
      decoding: further options. By default, pixels are as stored: EXIF's orientation is ignored.

    Returns:
      The image.

    Raises:
      UnreadableImageError: some pixels cannot be decoded, or the image is too large.
    """
    try:
        image, mended, reduced, deep_color = _load(data, decoding)
        turn = _UPRIGHT.get(_orientation(image)) if decoding.exif else None
        greys = None
        if image.mode in _SIXTEEN_BITS:
            image, greys = _to_eight_bits(image, decoding.grey_range)
        color_peak = _peak(image) if deep_color else None
        image = _to_rgb(image)
        if turn is not None:
            image = image.transpose(turn)
        return Decoded(np.asarray(image), greys, turn is not None, mended, reduced, color_peak)
    except UnreadableImageError:
        raise
    # Broken files make decoders raise nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise UnreadableImageError(" ".join(f"{type(error).__name__}: {error}".split())[:200]) from error


class _Loaded(NamedTuple):
    """A decoded image, and facts about it.

    Attributes:
      image: the image.
      mended: whether its end marker was added.
      reduced: whether its size was reduced.
      deep_color: whether it had 16-bit color.
    """

    image: Image.Image
    mended: bool
    reduced: bool
    deep_color: bool


def _load(data: bytes, decoding: Decoding) -> _Loaded:
    image = _open(data)
    deep_color = _has_deep_color(image)
    reduced = _fit(image, decoding.max_megapixels)
    if image.format != "JPEG" or not jpeg.lacks_end(data):
        image.load()
        return _Loaded(image, False, reduced, deep_color)
    whole = jpeg.with_end(data, lambda candidate: _load(candidate, decoding).image)
    if whole is None:
        raise UnreadableImageError("the JPEG is truncated: a part of the picture is missing")
    return _Loaded(whole, True, reduced, deep_color)


def _open(data: bytes) -> ImageFile.ImageFile:
    """Opens an image; only its header is read.

    `PIL.Image.open` is no alternative: it warns about large images or refuses them, by a limit for the whole process,
    before their size can be read.
    """
    if heic.is_heic(data):
        if not heic.readable():
            raise UnreadableImageError(heic.MISSING)
        return heic.open_heic(data)
    Image.init()
    for kind in KINDS:
        # Pillow before 11.3 does not know AVIF.
        factory, accept = Image.OPEN.get(kind, (None, None))
        # `accept` returns a string if Pillow was built without support for the kind.
        if factory is not None and accept is not None and accept(data[:16]) is True:
            return factory(io.BytesIO(data), "")
    raise UnreadableImageError("not an image of a known kind" if data else "the file is empty")


def _fit(image: ImageFile.ImageFile, max_megapixels: float) -> bool:
    """Makes a too large JPEG be decoded at a part of its size, and returns whether; refuses other large images."""
    w, h = image.size
    most = max_megapixels * 1e6
    if w * h <= most:
        return False
    part = _PART[image.format](image, most) if image.format in _PART else None
    if part is None:
        raise UnreadableImageError(f"{w} x {h} pixels are more than data.max_megapixels = {max_megapixels:g} allows")
    if isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        image.reduce = part.bit_length() - 1
    else:
        image.draft(None, (w // part, h // part))
    return True


def _has_deep_color(image: ImageFile.ImageFile) -> bool:
    """Whether a PNG or TIFF has 16-bit color or 16-bit transparency, of which Pillow reads the upper eight bits.

    Args:
      image: an image that is not decoded yet: afterwards, Pillow does not tell.
    """
    arguments = [tile[3] for tile in image.tile]
    raw_modes = [value[0] if isinstance(value, tuple) and value else value for value in arguments]
    return image.mode not in _SIXTEEN_BITS and any(";16" in str(mode) for mode in raw_modes)


def _peak(image: Image.Image) -> int:
    """The brightest level of an image with 8 bits in each channel, without the alpha channel."""
    return max(int(np.max(np.asarray(image.getchannel(band)))) for band in image.getbands() if band != "A")


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation of a decoded image, 1 ... 8; 1 is upright, as for TIFFs, which Pillow turns itself."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    # Broken EXIF data can raise many kinds of errors. The image itself is still readable.
    except Exception:
        return 1


def _to_eight_bits(image: Image.Image, grey_range: tuple[int, int]) -> tuple[Image.Image, tuple[int, int]]:
    """Converts 16-bit grayscale to 8 bits; also returns its darkest and brightest level."""
    levels = np.asarray(image)
    low, high = int(np.min(levels)), int(np.max(levels))
    if low < FULL_RANGE[0] or high > FULL_RANGE[1]:
        raise UnreadableImageError(f"pixels from {low} to {high}, of no known range")
    black, white = grey_range
    # 256 bins of equal width; for the full range, this is the upper byte.
    bins = np.clip((np.arange(FULL_RANGE[1] + 1) - black) * 256 // (white - black + 1), 0, 255).astype(np.uint8)
    # A PNG may have one level that is transparent, which shows white.
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        bins[transparent] = 255
    return Image.fromarray(bins[levels]), (low, high)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnreadableImageError("pixels are floats, of no known range")
    if image.has_transparency_data:
        over = _convert(image, "RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return _convert(image, "RGB")


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """`image.convert`, without the copy if the image already has that mode."""
    return image if image.mode == mode else image.convert(mode)
