"""A survey of a folder: facts about its files, the index, and the notes."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from tests.data.image_files import deep_color, encode, heic, noise, noted, photo
from vpns_jax import data, files
from vpns_jax.data import prepare, survey
from vpns_jax.data.decode import decode_image
from vpns_jax.data.decoding import FULL_RANGE, DecodeOptions, Decoding
from vpns_jax.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VPNS_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    """A folder of two classes with four images of 6 x 4 each."""
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(4):
            write(tmp_path / "images" / name / f"{i}.png", Image.new("RGB", (6, 4), (10 * i + 100 * k, 0, 0)))
    return tmp_path / "images"


def write(path, content: Image.Image | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else encode(content, "PNG"))


def deep(*levels: int) -> Image.Image:
    """A row of 16-bit grayscale."""
    return Image.fromarray(np.array([levels], np.uint16))


def sources(root, **options) -> data.Sources:
    return data.open_sources(f"folder:{root}", val_fraction=0.3, options=DecodeOptions(**options))


def pixels(opened: data.Sources, width: int) -> list[list[int]]:
    """The red values of the first row of all images of that width, in all splits."""
    images = [split[i][0] for split in (opened.train, opened.val, opened.test) for i in range(len(split))]
    return sorted(image[0, :, 0].tolist() for image in images if image.shape[1] == width)


# The brightest level of a set, and the results of each option.
GREYS = {
    "twelve bits": ((0, 16, 4095), {"auto": [0, 1, 255], "measured": [0, 1, 255], "full": [0, 0, 15]}),
    "eight bits": ((0, 1, 255), {"auto": [0, 1, 255], "measured": [0, 1, 255], "full": [0, 0, 0]}),
    "lower half": ((0, 0x4000, 0x7FFF), {"auto": [0, 128, 255], "measured": [0, 128, 255], "full": [0, 64, 127]}),
    "upper half": ((0, 0x4000, 0x8000), {"auto": [0, 64, 128], "measured": [0, 127, 255], "full": [0, 64, 128]}),
    "all": ((0, 0x8000, 0xFFFF), {"auto": [0, 128, 255], "measured": [0, 128, 255], "full": [0, 128, 255]}),
    "one level": ((300, 300, 300), {"auto": [1, 1, 1], "measured": [1, 1, 1], "full": [1, 1, 1]}),
}


@pytest.mark.parametrize("case", GREYS)
@pytest.mark.parametrize("choice", ["auto", "measured", "full"])
def test_one_range_of_greys_for_the_whole_set(root, case, choice):
    levels, expected = GREYS[case]
    write(root / "cat" / "deep.png", deep(*levels))
    # This image does not use the whole range, but the range is that of the whole set.
    write(root / "dog" / "dark.png", deep(levels[0], levels[0], levels[1]))
    opened = sources(root, grey_range=choice)
    first, second, third = expected[choice]
    assert pixels(opened, 3) == sorted([[first, second, third], [first, first, second]])
    assert f"2 of 10 images in 16-bit grayscale, levels {levels[0]} ... {levels[2]}: " in opened.notes[0]
    # Later predictions read the same decoding from a file.
    again = Decoding.from_json(json.loads(json.dumps(opened.decoding.to_json())))
    assert again == opened.decoding
    decoded = decode_image((root / "cat" / "deep.png").read_bytes(), again)
    assert decoded[0, :, 0].tolist() == expected[choice]


def test_prepare_says_what_was_seen(root, capsys):
    write(root / "cat" / "deep.png", deep(0, 4095))
    write(root / "dog" / "photo.jpg", noted("JPEG", 3))
    assert prepare.main(["prepare", f"folder:{root}"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 10 images in 16-bit grayscale, levels 0 ... 4095: 0 becomes black and 4095 white\n" in printed
    assert "1 of 10 images turned upright, as EXIF's orientation says: dog/photo.jpg\n" in printed


def test_without_deep_greys_nothing_is_said(root):
    opened = sources(root, grey_range="measured")
    assert not opened.notes
    assert opened.decoding == Decoding(exif=True, grey_range=FULL_RANGE)


@pytest.mark.parametrize(
    ("choice", "shape", "said"),
    [
        ("auto", (48, 32), "1 of 9 images turned upright, as EXIF's orientation says: cat/photo.jpg"),
        ("on", (48, 32), "1 of 9 images turned upright"),
        ("off", (32, 48), "1 of 9 images left as stored, though EXIF's orientation says"),
    ],
)
def test_orientation_of_a_folder(root, choice, shape, said):
    write(root / "cat" / "photo.jpg", noted("JPEG", 6))
    opened = sources(root, exif=choice)
    shapes = [split[i][0].shape[:2] for split in (opened.train, opened.val, opened.test) for i in range(len(split))]
    assert shapes.count(shape) == 1
    assert shapes.count((4, 6)) == 8
    assert opened.notes[0].startswith(said)
    # The facts in the index do not depend on the options.
    assert sources(root, exif=choice).notes == opened.notes


def test_jpegs_without_their_end_are_read_and_counted(root):
    for i in range(5):
        write(root / "cat" / f"cut{i}.jpg", encode(noise(), "JPEG")[:-2])
    opened = sources(root)
    assert not opened.skipped
    assert len(opened.train) + len(opened.val) + len(opened.test) == 13
    named = "cat/cut0.jpg, cat/cut1.jpg, cat/cut2.jpg, ..."
    assert opened.notes[0] == f"5 of 13 images read without their end marker, the last two bytes: {named}"


@pytest.mark.parametrize("name", ["a.HEIC", "b.heif", "c.png"])
def test_heic_pictures_are_named_with_what_to_do(root, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    write(root / "cat" / name, heic())
    assert sources(root).skipped == (
        f"cat/{name}: a HEIC image, which needs pillow-heif: pip install 'vpns_jax[heic]'; or convert it to JPEG, for "
        "example with ImageMagick: magick mogrify -format jpg *.HEIC",
    )


def test_heic_pictures_are_read_once_their_decoder_is_installed(root, monkeypatch):
    # As if time had passed since the files were written.
    monkeypatch.setattr(survey, "SETTLED_NS", -(10**9))
    write(root / "cat" / "a.HEIC", photo(6))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)
        assert len(sources(root).skipped) == 1
        identity = data.identity(f"folder:{root}")
    assert sources(root).skipped == ()
    assert data.identity(f"folder:{root}") != identity
    decoded = sources(root)
    shapes = [one[i][0].shape for one in (decoded.train, decoded.val, decoded.test) for i in range(len(one))]
    assert shapes.count((96, 64, 3)) == 1


def test_a_folder_of_heic_pictures_is_one_short_line(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for i in range(20):
        write(root / "cat" / f"IMG_{i:04}.HEIC", heic())
    with pytest.raises(
        UserError, match=r"20 of 28 files .* 20 of them like cat/IMG_0000.HEIC: a HEIC .* magick"
    ) as caught:
        sources(root)
    assert len(str(caught.value).replace(str(root), "")) < 320


def test_deep_color_is_counted_and_named(root):
    write(root / "cat" / "a.png", deep_color([0, 4095], 3))
    write(root / "dog" / "b.png", deep_color([0, 999], 4))
    assert sources(root).notes == (
        "2 of 10 images in 16-bit color, of which the upper eight bits are read, up to level 15 of 255: cat/a.png, "
        "dog/b.png",
    )


def test_images_above_the_limit(root):
    write(root / "cat" / "large.png", Image.new("L", (200, 100)))
    write(root / "cat" / "large.jpg", encode(Image.new("L", (200, 100)), "JPEG"))
    opened = sources(root, max_megapixels=0.01)
    assert opened.skipped == ("cat/large.png: 200 x 100 pixels are more than data.max_megapixels = 0.01 allows",)
    assert opened.notes == ("1 of 9 images above 0.01 megapixels and decoded at a part of their size: cat/large.jpg",)
    assert pixels(opened, 100) == [[0] * 100]
    assert not sources(root).skipped


DAMAGES = {
    "not JSON": lambda text: "[not json",
    "another type": lambda text: "[1, 2]",
    "of an older version": lambda text: json.dumps({"cat/0.png": ["76-1", ""]}),
    "too deep": lambda text: "[" * 100_000,
    "a verdict changed": lambda text: text.replace('"not an image of a known kind"', '""'),
    "a row too many": lambda text: text.replace(
        '{"cat/0.png"', '{"cat/9.png": ["1-1 64", 7, 7, 7, 7, 7, 7, 7], "cat/0.png"'
    ),
    "bytes": lambda text: "\x00\x01",
    "empty": lambda text: "",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_memory_is_made_again(root, damage, monkeypatch):
    # As if time had passed since the files were written.
    monkeypatch.setattr(survey, "SETTLED_NS", -(10**9))
    write(root / "cat" / "bad.png", b"spoilt")
    first = sources(root)
    path = survey.index_path(root)
    text = path.read_text()
    assert damage(text) != text
    path.write_text(damage(text))
    assert sources(root).skipped == first.skipped == ("cat/bad.png: not an image of a known kind",)
    assert path.read_text() == text


def test_a_memory_that_cannot_be_written_stops_nothing(root, monkeypatch):
    monkeypatch.setattr(survey, "SETTLED_NS", -(10**9))
    path = survey.index_path(root)
    path.parent.mkdir(parents=True)
    # Every write to /dev/full fails with "No space left on device".
    files.unfinished(path).symlink_to("/dev/full")
    assert len(sources(root).test) == 2
    assert not path.exists()


OPTIONS = {
    "exif": ("data.exif 'yes'", {"exif": "yes"}),
    "grey_range": ("data.grey_range '12'", {"grey_range": "12"}),
    "zero": (r"max_megapixels is 0; it must lie in \(0, 4295\]", {"max_megapixels": 0}),
    "below": ("max_megapixels is -1", {"max_megapixels": -1.0}),
    "infinite": ("max_megapixels is inf", {"max_megapixels": float("inf")}),
    "no number": ("max_megapixels is nan", {"max_megapixels": float("nan")}),
    "meaningless": (r"max_megapixels is 1e\+30", {"max_megapixels": 1e30}),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_are_checked(case):
    message, options = OPTIONS[case]
    with pytest.raises(UserError, match=message):
        DecodeOptions(**options)


GOOD = {"exif": True, "grey_range": [0, 4095], "max_megapixels": 64.0}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "x",
        {},
        GOOD | {"exif": 1},
        GOOD | {"exif": "on"},
        GOOD | {"grey_range": [0]},
        GOOD | {"grey_range": [0.0, 1.0]},
        GOOD | {"grey_range": "01"},
        GOOD | {"grey_range": [5, 5]},
        GOOD | {"grey_range": [-1, 5]},
        GOOD | {"grey_range": [0, 65536]},
        GOOD | {"max_megapixels": True},
        GOOD | {"max_megapixels": None},
        GOOD | {"max_megapixels": 0},
    ],
)
def test_a_decoding_from_a_file_is_checked(value):
    with pytest.raises(UserError, match=r"exif|grey_range|max_megapixels"):
        Decoding.from_json(value)
    assert Decoding.from_json(GOOD) == Decoding(True, (0, 4095), 64.0)


def test_what_is_asked_for_is_a_part_of_a_sets_identity(root):
    name = f"folder:{root}"
    # For folders, "auto" means on.
    on, off = (
        {data.identity(name, DecodeOptions(exif=exif)) for exif in choice} for choice in (("auto", "on"), ("off",))
    )
    assert {data.identity(name)} == on != off
    assert data.identity("digits", DecodeOptions(exif="off")) == data.identity("digits")
