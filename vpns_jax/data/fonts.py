"""The 62 characters 0-9, A-Z, a-z, drawn from the fonts that matplotlib ships: a printed source task.

White on black and 28 x 28, as MNIST is, so that going from here to handwriting changes the hand and nothing else.
Which fonts go to the test split is fixed: it asks for characters in a type never seen.
"""

import string
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vpns_jax.data.dataset import Split

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
TEST_FONTS = ("DejaVuSansMono", "DejaVuSerif-Italic", "STIXGeneralItalic", "cmss10")
TRAIN_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSans-Oblique",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "cmb10",
    "cmr10",
    "cmti10",
    "cmtt10",
)
SIZE = 28
VARIANTS = 8
# Drawn three times as large and reduced, so that strokes end softly.
_SCALE = 3
_CANVAS = _SCALE * SIZE


def load() -> tuple[Split, Split]:
    """The training and the test split: every character in every font, `VARIANTS` times, always the same."""
    return _draw_all(TRAIN_FONTS, seed=62), _draw_all(TEST_FONTS, seed=63)


def _draw_all(fonts: tuple[str, ...], *, seed: int) -> Split:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for name in fonts:
        font = ImageFont.truetype(folder / f"{name}.ttf", 24 * _SCALE)
        for label, character in enumerate(CHARACTERS):
            images += [_draw(character, font, rng) for _ in range(VARIANTS)]
            labels += [label] * VARIANTS
    return Split(np.stack(images)[..., None], np.array(labels, np.int32))


def _draw(character: str, font: ImageFont.FreeTypeFont, rng: np.random.Generator) -> np.ndarray:
    """One character, about the middle, turned, slanted, stretched and thickened a little: uint8 [28, 28]."""
    image = Image.new("L", (_CANVAS, _CANVAS))
    centre = _CANVAS / 2
    ImageDraw.Draw(image).text(
        (centre, centre), character, fill=255, font=font, anchor="mm", stroke_width=int(rng.integers(0, 4))
    )
    angle, slant = rng.uniform(-0.25, 0.25), rng.uniform(-0.2, 0.2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.diag(rng.uniform(0.85, 1.25, 2))
    # Pillow asks for the way back: from a place in the result to one in the drawing.
    back = turn @ np.array([[1, slant], [0, 1]]) @ stretch
    shift = centre - back @ (centre + rng.uniform(-2, 2, 2) * _SCALE)
    moved = image.transform(
        image.size,
        Image.Transform.AFFINE,
        (*back[0], shift[0], *back[1], shift[1]),
        resample=Image.Resampling.BILINEAR,
    )
    return np.asarray(moved.reduce(_SCALE))
