"""Class names in any script, drawn without a warning: warnings are errors here."""

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

from vpns_jax.analysis import figures, fonts

IMAGES = np.ones((1, 8, 8, 3), np.float32)


@pytest.fixture
def only_default(monkeypatch):
    """A machine that has only matplotlib's fonts."""
    ours = [font for font in font_manager.fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", ours)


def square_font(path, letters: str) -> None:
    """A font whose every letter is a black square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", *(f"u{ord(letter):x}" for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(dict(zip(map(ord, letters), names[1:], strict=True)))
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)


def ink(title: str, path) -> int:
    """How many dark pixels a title has."""
    drawn = Image.open(figures.examples_figure(IMAGES, IMAGES, [title], path)).convert("L")
    return int((np.asarray(drawn) < 90).sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat", "cat"),
        ("$5_x^2", "$5_x^2"),
        ("Ünïcode", "Ünïcode"),
        ("كلب", "كلب"),
        ("犬", "\\u72ac"),
        ("a 🐶", "a \\U0001f436"),
        ("犬\ufe0f", "\\u72ac\ufe0f"),
        ("犬\U000e0100", "\\u72ac"),
        ("हिन्दी", "\\u0939\\u093f\\u0928\\u094d\\u0926\\u0940"),
        ("caf\\xe9", "caf\\xe9"),
    ],
)
@pytest.mark.usefixtures("only_default")
def test_letters_that_no_font_has_are_escaped(tmp_path, name, shown):
    assert fonts.legible(name) == (shown, ["DejaVu Sans"])
    assert ink(name, tmp_path / "e.png") > ink("", tmp_path / "e.png")


def test_a_font_of_the_machine_that_has_the_letters_is_used(tmp_path, monkeypatch):
    before = list(font_manager.fontManager.ttflist)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", before)
    for name, letters in (("Half", "犬"), ("Whole", "犬猫"), ("Other", "🐶")):
        square_font(tmp_path / f"{name}.ttf", letters)
        font_manager.fontManager.addfont(tmp_path / f"{name}.ttf")
    (tmp_path / "Damaged.ttf").write_bytes((tmp_path / "Half.ttf").read_bytes()[:100])
    before.append(font_manager.FontEntry(fname=str(tmp_path / "Damaged.ttf"), name="Damaged"))
    assert fonts.legible("犬猫 🐶 x") == ("犬猫 🐶 x", ["DejaVu Sans", "Whole", "Other"])
    # Two squares of 9 points at 150 dots an inch: 15 pixels each way.
    assert ink("犬猫", tmp_path / "e.png") - ink("", tmp_path / "e.png") == pytest.approx(2 * 15**2, rel=0.1)


@pytest.mark.parametrize("name", ["x" * 255, "word " * 50, " ", "犬" * 85])
def test_long_names_leave_room_for_the_images(tmp_path, name):
    shown = figures.examples_figure(IMAGES, IMAGES, [name], tmp_path / "e.png")
    white = (np.asarray(Image.open(shown).convert("L")) > 250).mean()
    assert white > 0.5
