"""How an image's bytes become pixels: `DecodeOptions` are the user's options, `Decoding` the decision for a data set.

Both are small values: they go from the config to the sources, with the sources to worker processes, and with a finished
network into its file.
"""

import dataclasses
import json
from typing import Any

from vpns_jax.errors import UserError, check_name

EXIF = ("auto", "on", "off")
GREY_RANGES = ("auto", "full", "measured")
# The range of 16-bit levels.
FULL_RANGE = (0, 0xFFFF)
# A JPEG has at most 65535 x 65535 pixels; other kinds do not need more.
MOST_MEGAPIXELS = 4295.0


def _check_megapixels(value: float) -> None:
    if not 0 < value <= MOST_MEGAPIXELS:
        raise UserError(
            f"data.max_megapixels is {value}; it must lie in (0, {MOST_MEGAPIXELS:g}], which is the largest JPEG"
        )


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How all images of a data set are decoded, and all images for later predictions.

    Attributes:
      exif: whether an image is turned upright according to EXIF's orientation.
      grey_range: the 16-bit gray levels that become black and white, 0 <= black < white <= 65535.
      max_megapixels: the largest size of an image, in millions of pixels. A larger JPEG is decoded at a half, a quarter
        or an eighth of its size; a larger image of another kind is unreadable.
    """

    exif: bool = False
    grey_range: tuple[int, int] = FULL_RANGE
    max_megapixels: float = 64.0

    def __post_init__(self) -> None:
        black, white = self.grey_range
        if not 0 <= black < white <= FULL_RANGE[1]:
            raise UserError(f"grey_range is {black} ... {white}; it must lie in 0 ... 65535, black below white")
        _check_megapixels(self.max_megapixels)

    def to_json(self) -> dict[str, Any]:
        """JSON values, to be written into a network's file; `from_json` reads them."""
        return {"exif": self.exif, "grey_range": list(self.grey_range), "max_megapixels": self.max_megapixels}

    @classmethod
    def from_json(cls, value: Any) -> "Decoding":
        """Reads the values of `to_json`.

        Args:
          value: parsed JSON of any type.

        Returns:
          The decoding.

        Raises:
          UserError: the value is something else.
        """
        try:
            exif, (black, white), most = value["exif"], value["grey_range"], value["max_megapixels"]
        except (TypeError, KeyError, ValueError):
            exif = black = white = most = None
        # For Python, a bool is an int; here it is not allowed.
        if type(exif) is bool and type(black) is type(white) is int and type(most) in (int, float):
            return cls(exif, (black, white), float(most))
        shown = json.dumps(value, default=str)[:100]
        raise UserError(f"the decoding of images is {shown}; it needs exif, grey_range and max_megapixels")


# Pixels as they are in the file; of 16-bit levels, the upper byte is taken.
AS_STORED = Decoding()


@dataclasses.dataclass(frozen=True)
class DecodeOptions:
    """The user's options; "auto" depends on the data set.

    Attributes:
      exif: "on", "off", or "auto": on for folders, off for prepared public data sets, because others read them so.
      grey_range: "full", "measured" (from the darkest to the brightest level of the whole set), or "auto": measured
        if no image uses the upper half of the range.
      max_megapixels: see `Decoding`.
    """

    exif: str = "auto"
    grey_range: str = "auto"
    max_megapixels: float = Decoding.max_megapixels

    def __post_init__(self) -> None:
        check_name("data.exif", self.exif, EXIF)
        check_name("data.grey_range", self.grey_range, GREY_RANGES)
        _check_megapixels(self.max_megapixels)

    def decide(self, *, exif: bool, greys: tuple[int, int] | None = None) -> Decoding:
        """Replaces "auto" by a decision for one data set.

        Args:
          exif: the meaning of "auto" for this set.
          greys: the darkest and the brightest level of the set's 16-bit grayscale; None if it has no such images.

        Returns:
          The decoding.
        """
        if self.exif != "auto":
            exif = self.exif == "on"
        dark = greys is not None and greys[1] <= FULL_RANGE[1] // 2
        measured = self.grey_range == "measured" or (self.grey_range == "auto" and dark)
        # A set with a single level has no range.
        usable = greys if measured and greys is not None and greys[0] < greys[1] else FULL_RANGE
        return Decoding(exif, usable, self.max_megapixels)


# Everything depends on the data set.
DEFAULT = DecodeOptions()
