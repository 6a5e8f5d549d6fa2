"""Image files that are broken, cut off or of no known kind: each says why, and none is handed to another program."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from tests.data.image_files import BROKEN, encode, heic, noise
from vpns_jax.data.decode import UnreadableImageError, decode_image, read_image


@pytest.mark.parametrize("what", BROKEN)
def test_broken_files_say_why(what):
    data, reason = BROKEN[what]
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        decode_image(data)
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize(("brand", "others"), [(b"heic", ()), (b"heix", ()), (b"mif1", (b"mif1", b"heic"))])
def test_heic_without_its_decoder_says_what_to_do(brand, others, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        UnreadableImageError, match=r"HEIC image.* pip install 'vpns_jax\[heic\]'; or convert it to JPEG.*magick"
    ):
        decode_image(heic(brand, *others))


def test_nothing_is_handed_to_another_program(monkeypatch):
    # Pillow passes PostScript to Ghostscript, whatever the file's suffix is.
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    monkeypatch.setattr("subprocess.Popen", pytest.fail)
    monkeypatch.setattr("subprocess.check_call", pytest.fail)
    assert Image.open(io.BytesIO(postscript)).format == "EPS"
    with pytest.raises(UnreadableImageError, match="not an image of a known kind"):
        decode_image(postscript)


JPEGS = {"plain": {}, "progressive": {"progressive": True}, "restarts": {"restart_marker_rows": 1}}


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("end", [b"", b"\xff", b"\xff\xff", bytes(7)])
def test_a_jpeg_without_its_end_marker_is_read(options, end):
    whole = encode(noise(), "JPEG", **options)
    image = read_image(whole[:-2] + end)
    np.testing.assert_array_equal(image.pixels, decode_image(whole))
    assert image.mended
    assert not read_image(whole).mended


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("lost", [4, 5, 20, 500])
@pytest.mark.parametrize("end", [b"", b"\xff", bytes(5000)])
def test_a_jpeg_that_lacks_picture_is_not(options, lost, end):
    with pytest.raises(UnreadableImageError, match="truncated"):
        decode_image(encode(noise(), "JPEG", **options)[:-lost] + end)
