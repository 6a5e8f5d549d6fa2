"""How an image's bytes become pixels: what is asked for, and what is decided for a data set.

Both are small values that travel: from the config to the sources, with the sources to worker processes, and with a
finished network to whoever predicts with it.
"""

import dataclasses
import json
from typing import Any

from vpns_jax.errors import UserError, check_name

EXIF = ("auto", "on", "off")
GREY_RANGES = ("auto", "full", "measured")
# All that sixteen bits can say.
FULL_RANGE = (0, 0xFFFF)
# A JPEG has at most 65535 x 65535 pixels; no other kind has use for more.
MOST_MEGAPIXELS = 4295.0


def _check_megapixels(value: float) -> None:
    if not 0 < value <= MOST_MEGAPIXELS:
        raise UserError(
            f"data.max_megapixels is {value}; it must lie in (0, {MOST_MEGAPIXELS:g}], which is the largest JPEG"
        )


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What is done to every image of a data set, and to every image that is predicted on later.

    Attributes:
      exif: whether an image is turned as the camera's note on orientation says.
      grey_range: the levels of 16-bit greyscale that become black and white, 0 <= black < white <= 65535.
      max_megapixels: how large an image may be, in millions of pixels. A larger JPEG is decoded at a half, a quarter
        or an eighth of its size; another kind is unreadable.
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
        """Plain values, to be written beside a network; `from_json` takes them back."""
        return {"exif": self.exif, "grey_range": list(self.grey_range), "max_megapixels": self.max_megapixels}

    @classmethod
    def from_json(cls, found: Any) -> "Decoding":
        """What `to_json` wrote.

        Args:
          found: the parsed JSON, of whatever type.

        Raises:
          UserError: anything else.
        """
        try:
            exif, (black, white), most = found["exif"], found["grey_range"], found["max_megapixels"]
        except (TypeError, KeyError, ValueError):
            exif = black = white = most = None
        # A bool is an int to Python; here it is not.
        if type(exif) is bool and type(black) is type(white) is int and type(most) in (int, float):
            return cls(exif, (black, white), float(most))
        shown = json.dumps(found, default=str)[:100]
        raise UserError(f"the decoding of images is {shown}; it needs exif, grey_range and max_megapixels")


# Pixels as they are in the file, sixteen bits cut to eight.
AS_STORED = Decoding()


@dataclasses.dataclass(frozen=True)
class DecodeOptions:
    """What a user asks for; "auto" leaves it to the data set.

    Attributes:
      exif: "on", "off", or "auto": on for folders, off for prepared public sets, which others read so.
      grey_range: "full", "measured" (from the darkest to the brightest level of the whole set), or "auto": measured
        where no image uses the upper half.
      max_megapixels: as `Decoding` has it.
    """

    exif: str = "auto"
    grey_range: str = "auto"
    max_megapixels: float = Decoding.max_megapixels

    def __post_init__(self) -> None:
        check_name("data.exif", self.exif, EXIF)
        check_name("data.grey_range", self.grey_range, GREY_RANGES)
        _check_megapixels(self.max_megapixels)

    def decide(self, *, exif: bool, greys: tuple[int, int] | None = None) -> Decoding:
        """What is asked for, with what the data set is in the place of "auto".

        Args:
          exif: what "auto" means for this set.
          greys: the darkest and the brightest level of the set's 16-bit greyscale; None where there is none.
        """
        if self.exif != "auto":
            exif = self.exif == "on"
        dark = greys is not None and greys[1] <= FULL_RANGE[1] // 2
        measured = self.grey_range == "measured" or (self.grey_range == "auto" and dark)
        # A set of one level has no range to measure.
        usable = greys if measured and greys is not None and greys[0] < greys[1] else FULL_RANGE
        return Decoding(exif, usable, self.max_megapixels)


# Everything left to the data set.
DEFAULT = DecodeOptions()
