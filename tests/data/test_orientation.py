"""Orientation in the notes of image files: followed where it is asked for, and broken notes do no harm."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.data.image_files import STORED, UPRIGHT, encode, noted, photo, row
from vpns_jax.data.decode import decode_image, read_image
from vpns_jax.data.decoding import Decoding


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_followed_where_it_is_asked_for(orientation, kind):
    data = noted(kind, orientation)
    image = read_image(data, Decoding(exif=True))
    np.testing.assert_allclose(image.pixels[8::16, 8::16, 0], 40 * np.array(UPRIGHT[orientation]), atol=3)
    assert image.turned == (orientation != 1)
    assert not read_image(data).turned
    np.testing.assert_allclose(decode_image(data)[8::16, 8::16, 0], STORED, atol=3)


def test_a_tiffs_orientation_is_part_of_the_kind_and_followed_once():
    for exif in (False, True):
        image = read_image(noted("TIFF", 6), Decoding(exif=exif))
        np.testing.assert_array_equal(image.pixels[8::16, 8::16, 0], 40 * np.array(UPRIGHT[6]))


NOTES = (b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # pytest sets aside the filter of the library.
@pytest.mark.parametrize("note", NOTES)
def test_a_broken_note_does_not_break_the_image(note):
    data = encode(Image.fromarray(row(16)), "JPEG", exif=note)
    assert read_image(data, Decoding(exif=True)).pixels.shape == (16, 96, 3)
    # An invalid orientation.
    assert not read_image(noted("JPEG", 9), Decoding(exif=True)).turned


def test_a_broken_note_prints_nothing(tmp_path):
    """In a process of its own: Pillow's warnings go to the screen."""
    for k, note in enumerate(NOTES):
        # Without a density of its own, Pillow looks into the note as soon as it opens the file.
        data = encode(Image.fromarray(row(16)), "JPEG", exif=note)
        start = data.index(b"\xff\xe0")
        (tmp_path / f"{k}.jpg").write_bytes(
            data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4]) :]
        )
    program = (
        "import sys; from pathlib import Path; from vpns_jax.data import Decoding; from vpns_jax.data import decode\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    print(decode.decode_image(path.read_bytes(), Decoding(exif=True)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == len(NOTES) * "(16, 96, 3)\n"
    assert done.stderr == ""


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_heic_is_read_and_its_orientation_is_a_part_of_the_kind(orientation):
    for exif in (False, True):
        image = read_image(photo(orientation), Decoding(exif=exif))
        expected = 40 * np.array(UPRIGHT[orientation])
        np.testing.assert_allclose(image.pixels[16::32, 16::32, 0].astype(int), expected, atol=6)
        assert not image.turned
