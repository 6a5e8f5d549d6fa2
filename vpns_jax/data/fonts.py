"""fonts62: printed digits and letters, rendered from TrueType fonts that are part of matplotlib.

It is a source task with more classes than data sets of digits, and differs clearly from handwriting. Characters are
white on black and about as large as MNIST's: a capital letter is 20 pixels high and lower-case letters are smaller, so
both can be told apart. The test split has other fonts than the training split. The images are the same for the same
version of Pillow, whose FreeType draws them.
"""

import functools
import math
import string
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageFont, features

from vpns_jax.data.bundled import import_bundled
from vpns_jax.data.source import ArraySource, Original
from vpns_jax.errors import UserError

CHARACTERS = tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase)

# The fonts with a proper glyph for every character. Other fonts of matplotlib draw symbols (cmsy10, cmex10), boxes
# (LastResort), or digits as low as lower-case letters, with a 0 like an o (cmmi10).
TRAIN_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralBolIta",
    "STIXGeneralItalic",
    "cmb10",
    "cmr10",
    "cmti10",
    "cmtt10",
)
TEST_FONTS = ("DejaVuSans-BoldOblique", "DejaVuSansMono", "DejaVuSerif-Italic", "STIXGeneralBol", "cmss10")
# The number of images of each character in each font: 96 a class in the training split, 30 in the test split.
VARIANTS = 6

_SIZE = 28
_SUPERSAMPLING = 3  # Glyphs are drawn and warped at three times their size, then averaged down.
_CAPITAL = 20  # The height of an H at full size, in pixels.
_SPAN = 22  # The largest width and height of any glyph, in pixels.
_SHEET = 128  # The side of the supersampled sheet on which a glyph is drawn; the widest W fits.
# The largest rotation in degrees, slant, and shift in pixels, in both directions; and the smallest scale.
_TURN, _SLANT, _SHIFT, _SMALLEST = 10.0, 0.15, 1.5, 0.8
_STROKES = 3  # Strokes are thickened by 0, 1 or 2 supersampled pixels.


def fonts62() -> Original:
    """The 62 characters 0-9 A-Z a-z in 21 fonts, 28 x 28 pixels, slightly rotated, slanted, shifted and scaled."""
    folder = _folder()
    return Original(
        CHARACTERS, flip=False, train=_render(folder, TRAIN_FONTS, seed=0), test=_render(folder, TEST_FONTS, seed=1)
    )


def drawn_from() -> tuple[bytes, ...]:
    """The bytes that determine `fonts62`: the versions of Pillow and FreeType, and the fonts' files."""
    folder = _folder()
    versions = f"pillow {PIL.__version__}, freetype {features.version('freetype2')}"
    return versions.encode(), *(_font_path(folder, name).read_bytes() for name in TRAIN_FONTS + TEST_FONTS)


def _folder() -> Path:
    matplotlib = import_bundled("matplotlib", needed_by="fonts62", package="matplotlib")
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def _font_path(folder: Path, name: str) -> Path:
    path = folder / f"{name}.ttf"
    if not path.is_file():
        raise UserError(
            f"data set 'fonts62' draws from matplotlib's fonts, and {path} is missing; reinstall matplotlib"
        )
    return path


def load_font(folder: Path, name: str) -> ImageFont.FreeTypeFont:
    """Loads a font at the supersampled size at which a capital H has the right height.

    Args:
      folder: the folder of matplotlib's fonts.
      name: the font's name.

    Returns:
      The font.

    Raises:
      UserError: matplotlib lacks the font.
    """
    path = _font_path(folder, name)
    # The basic layout engine does not depend on other installed libraries.
    trial = ImageFont.truetype(path, 100, layout_engine=ImageFont.Layout.BASIC)
    _, top, _, bottom = trial.getbbox("H")
    size = 100 * _CAPITAL * _SUPERSAMPLING / (bottom - top)
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _render(folder: Path, names: tuple[str, ...], *, seed: int) -> ArraySource:
    rng = np.random.default_rng(seed)
    fonts = [load_font(folder, name) for name in names]
    labels = np.tile(np.repeat(np.arange(len(CHARACTERS), dtype=np.int32), VARIANTS), len(fonts))
    changes = rng.uniform(-1, 1, (len(labels), 5))
    strokes = rng.integers(_STROKES, size=len(labels))
    images = np.empty((len(labels), _SIZE, _SIZE, 1), np.uint8)
    for i, label in enumerate(labels):
        font = fonts[i // (len(CHARACTERS) * VARIANTS)]
        images[i, ..., 0] = _draw(font, CHARACTERS[label], int(strokes[i]), changes[i])
    return ArraySource(images, labels)


def _draw(font: ImageFont.FreeTypeFont, character: str, stroke: int, change: np.ndarray) -> np.ndarray:
    """Draws one image, uint8 `[28, 28]`. `change` `[5]` in [-1, 1] is rotation, slant, size, shift right and down."""
    sheet, ink_width, ink_height = _sheet(font, character, stroke)
    turn, slant = math.radians(_TURN * change[0]), _SLANT * change[1]
    shrink = _SMALLEST + (1 - _SMALLEST) * (change[2] + 1) / 2
    span = _SPAN * _SUPERSAMPLING
    width, height = min(shrink, span / ink_width), min(shrink, span / ink_height)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    warp = rotation @ np.array([[1, slant], [0, 1]]) @ np.diag([width, height])

    # PIL needs the inverse map: from pixels of the result to places on the sheet.
    large = _SIZE * _SUPERSAMPLING
    back = np.linalg.inv(warp)
    offset = _SHEET / 2 - back @ (large / 2 + _SHIFT * _SUPERSAMPLING * change[3:])
    matrix = (back[0, 0], back[0, 1], offset[0], back[1, 0], back[1, 1], offset[1])
    warped = sheet.transform((large, large), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(warped.reduce(_SUPERSAMPLING))


# The variants of a character follow each other.
@functools.lru_cache(maxsize=_STROKES)
def _sheet(font: ImageFont.FreeTypeFont, character: str, stroke: int) -> tuple[Image.Image, float, float]:
    """Draws a glyph in the middle of a sheet; also returns the width and the height of its ink."""
    left, top, right, bottom = font.getbbox(character, anchor="ls", stroke_width=stroke)
    sheet = Image.new("L", (_SHEET, _SHEET))
    middle = (_SHEET - left - right) / 2, (_SHEET - top - bottom) / 2
    ImageDraw.Draw(sheet).text(middle, character, fill=255, font=font, anchor="ls", stroke_width=stroke)
    return sheet, right - left, bottom - top
