"""Image files of every kind to RGB."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from vpns_jax.data import decode
from vpns_jax.data.decode import UnreadableImageError, decode_image, read_image
from vpns_jax.data.decoding import Decoding

# Six pixels in a row, wide apart; JPEG gets them as blocks of 8 x 8.
COLORS = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 160, 220]], np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def row(scale: int = 1) -> np.ndarray:
    """uint8 [scale, 6 * scale, 3]."""
    return COLORS[None].repeat(scale, 0).repeat(scale, 1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True}), ("PPM", {})],
)
def test_lossless_kinds_are_exact(kind, options):
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(row()), kind, **options)), row())


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 100, "subsampling": 0}), ("WEBP", {"quality": 100})]
)
def test_lossy_kinds_are_close(kind, options):
    image = decode_image(encode(Image.fromarray(row(16)), kind, **options)).astype(int)
    np.testing.assert_allclose(image[8, 8::16], COLORS, atol=6)


def test_cmyk_jpeg():
    data = encode(Image.fromarray(row(16)).convert("CMYK"), "JPEG", quality=100)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    np.testing.assert_allclose(decode_image(data)[8, 8::16].astype(int), COLORS, atol=6)


def test_gray_becomes_three_channels():
    gray = np.array([[0, 100, 255]], np.uint8)
    expected = gray[..., None].repeat(3, -1)
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(gray), "PNG")), expected)
    assert decode_image(encode(Image.fromarray(gray), "JPEG")).shape == (1, 3, 3)
    bits = Image.fromarray(np.array([[True, False]]))
    np.testing.assert_array_equal(decode_image(encode(bits, "PNG"))[..., 0], [[255, 0]])


def test_sixteen_bits_are_scaled_not_cut_off():
    deep = Image.fromarray(np.array([[0, 0x00FF, 0x8000, 0xFFFF]], np.uint16))
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode_image(encode(deep, kind))[..., 0], [[0, 0, 128, 255]])


@pytest.mark.parametrize(
    ("levels", "grey_range", "expected"),
    [
        # Twelve bits: the upper eight are taken.
        ([0, 16, 2048, 4095], (0, 4095), [0, 1, 128, 255]),
        # Eight bits in a 16-bit file: as they are.
        ([0, 1, 127, 255], (0, 255), [0, 1, 127, 255]),
        # From 1000 to 1511 two levels share a bin; levels outside become black or white.
        ([0, 1000, 1001, 1002, 1511, 9999], (1000, 1511), [0, 0, 0, 1, 255, 255]),
        ([7, 8], (7, 8), [0, 128]),
        ([0, 0x00FF, 0x8000, 0xFFFF], (0, 0xFFFF), [0, 0, 128, 255]),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_range_of_greys(kind, levels, grey_range, expected):
    data = encode(Image.fromarray(np.array([levels], np.uint16)), kind)
    image = read_image(data, Decoding(grey_range=grey_range))
    np.testing.assert_array_equal(image.pixels[0], np.array(expected)[:, None].repeat(3, 1))
    assert image.greys == (levels[0], levels[-1])
    # The range does not apply to 8-bit images.
    plain = read_image(encode(Image.fromarray(np.array([[0, 100]], np.uint8)), kind), Decoding(grey_range=grey_range))
    np.testing.assert_array_equal(plain.pixels[0, :, 0], [0, 100])
    assert plain.greys is None


def deep_color(levels: list[int], channels: int) -> bytes:
    """A PNG of one row with the same 16-bit level in all its channels: gray with alpha, RGB or RGBA."""
    row = np.array(levels, ">u2")[:, None].repeat(channels, 1)
    if channels != 3:
        row[:, -1] = 0xFFFF
    header = struct.pack(">IIBBBBB", len(levels), 1, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + row.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_of_deep_color_the_upper_bits_are_read_and_that_is_noted(channels):
    image = read_image(deep_color([0, 15, 256, 4095], channels), Decoding(grey_range=(0, 4095)))
    np.testing.assert_array_equal(image.pixels[0], np.array([0, 0, 1, 15])[:, None].repeat(3, 1))
    assert image.color_peak == 15
    assert image.greys is None
    for eight in (encode(Image.fromarray(row()), "PNG"), encode(Image.fromarray(row()), "TIFF")):
        assert read_image(eight).color_peak is None


def test_palette():
    image = Image.fromarray(row()).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    np.testing.assert_array_equal(decode_image(encode(image, "PNG")), row())
    np.testing.assert_array_equal(decode_image(encode(image, "GIF")), row())


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_shows_white(kind):
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    decoded = decode_image(encode(Image.fromarray(pixels), kind, **options)).astype(int)
    # Opaque red; fully transparent; half transparent black: 255 * 127 / 255.
    np.testing.assert_allclose(decoded, [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]], atol=1)


def test_gray_with_alpha_and_palette_with_transparency():
    gray = Image.merge("LA", [Image.new("L", (2, 1), 10), Image.fromarray(np.array([[255, 0]], np.uint8))])
    np.testing.assert_array_equal(decode_image(encode(gray, "PNG"))[0, :, 0], [10, 255])

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    # One entry by number, and a table of alphas: PNG knows both.
    for transparency in (1, bytes([255, 0])):
        decoded = decode_image(encode(palette, "PNG", transparency=transparency))
        np.testing.assert_array_equal(decoded, [[[10, 20, 30], [255, 255, 255]]])


def test_of_an_animation_the_first_frame():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP"):
        decoded = decode_image(encode(frames[0], kind, save_all=True, append_images=frames[1:]))
        np.testing.assert_allclose(decoded.astype(int), np.full((4, 4, 3), [255, 0, 0]), atol=3)


# For each of EXIF's orientations where the stored pixels 0 1 2 / 3 4 5 belong, by the standard's own words: "row 0 is
# the visual ... , column 0 the visual ...".
UPRIGHT = {
    1: [[0, 1, 2], [3, 4, 5]],  # top, left
    2: [[2, 1, 0], [5, 4, 3]],  # top, right
    3: [[5, 4, 3], [2, 1, 0]],  # bottom, right
    4: [[3, 4, 5], [0, 1, 2]],  # bottom, left
    5: [[0, 3], [1, 4], [2, 5]],  # left, top
    6: [[3, 0], [4, 1], [5, 2]],  # right, top
    7: [[5, 2], [4, 1], [3, 0]],  # right, bottom
    8: [[2, 5], [1, 4], [0, 3]],  # left, bottom
}
STORED = 40 * np.array(UPRIGHT[1], np.uint8)


def noted(kind: str, orientation: int, **options) -> bytes:
    """STORED with an orientation in EXIF, in blocks of 16 x 16, which lossy kinds preserve."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(Image.fromarray(STORED.repeat(16, 0).repeat(16, 1)), kind, exif=exif, **options)


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


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


BROKEN = {
    "empty": (b"", "empty"),
    "text": (b"this is not an image, whatever it is called", "not an image"),
    "html": (b"<!DOCTYPE html><html>404</html>", "not an image"),
    "cut JPEG": (encode(noise(), "JPEG")[:-900], "truncated"),
    "cut PNG": (encode(noise(), "PNG")[:-900], "truncated|broken"),
    "cut WebP": (encode(noise(), "WEBP")[:-900], "."),
    "PNG of another checksum": (encode(noise(), "PNG").replace(b"IDAT", b"IDAT\0", 1), "."),
    "only a header": (encode(noise(), "PNG")[:33], "."),
    "floats": (encode(Image.fromarray(np.full((2, 2), 0.5, np.float32)), "TIFF"), "floats"),
    "32 bits": (encode(Image.fromarray(np.full((2, 2), 1 << 20, np.int32)), "TIFF"), "no known range"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_files_say_why(what):
    data, reason = BROKEN[what]
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        decode_image(data)
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


def heic(brand: bytes = b"heic", *others: bytes) -> bytes:
    """The first bytes of a phone's HEIC image; more are not read."""
    box = b"ftyp" + brand + bytes(4) + b"".join(others)
    return struct.pack(">I", len(box) + 4) + box + bytes(100)


@pytest.mark.parametrize(("brand", "others"), [(b"heic", ()), (b"heix", ()), (b"mif1", (b"mif1", b"heic"))])
def test_heic_without_its_decoder_says_what_to_do(brand, others, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        UnreadableImageError, match=r"HEIC image.* pip install 'vpns_jax\[heic\]'; or convert it to JPEG.*magick"
    ):
        decode_image(heic(brand, *others))


def photo(orientation: int = 1) -> bytes:
    """STORED as a phone saves it; skips the test where there is no pillow-heif."""
    pillow_heif = pytest.importorskip("pillow_heif")
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image = pillow_heif.from_pillow(Image.fromarray(STORED.repeat(32, 0).repeat(32, 1)).convert("RGB"))
    image.save(file, quality=90, exif=exif.tobytes())
    return file.getvalue()


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_heic_is_read_and_its_orientation_is_a_part_of_the_kind(orientation):
    for exif in (False, True):
        image = read_image(photo(orientation), Decoding(exif=exif))
        expected = 40 * np.array(UPRIGHT[orientation])
        np.testing.assert_allclose(image.pixels[16::32, 16::32, 0].astype(int), expected, atol=6)
        assert not image.turned


def test_heic_has_the_same_limits_as_all_others(monkeypatch):
    data = photo()
    with pytest.raises(UnreadableImageError, match=r"96 x 64 pixels are more than data\.max_megapixels = 0\.001"):
        decode_image(data, Decoding(max_megapixels=0.001))
    for end in (40, len(data) // 2, len(data) - 20):
        with pytest.raises(UnreadableImageError) as caught:
            decode_image(data[:end])
        assert "\n" not in str(caught.value)
    # Pillow's own list of formats stays as it is.
    assert "HEIF" not in Image.OPEN


def test_avif_is_no_heic():
    data = encode(Image.fromarray(row(16)), "AVIF", quality=100)
    np.testing.assert_allclose(decode_image(data)[8, 8::16].astype(int), COLORS, atol=6)


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


def png(width: int, height: int, bits: int = 8) -> bytes:
    """A gray PNG whose header promises that size, with nearly no pixels."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0),
        b"IDAT": zlib.compress(bytes(9)),
        b"IEND": b"",
    }
    packed = [
        struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def promised(kind: str, before: bytes, layout: str, *size: int, **options) -> bytes:
    """A small image whose header claims another size, which stands after the bytes `before`."""
    data = bytearray(encode(Image.new("RGB", (8, 8)), kind, **options))
    struct.pack_into(layout, data, data.index(before) + len(before), *size)
    return bytes(data)


# A tag's number, type (long) and count, and then its value; type, count and value again for the next.
TIFF_SIZE = struct.pack("<HHI", 256, 4, 1)
BOMBS = {
    # Pillow lets the first pass with a warning, and refuses the second by a limit of its own.
    "16-bit PNG": png(13300, 13300, bits=16),
    "PNG": png(100_000, 100_000),
    "BMP": promised("BMP", struct.pack("<I", 40), "<ii", 10_000, 10_000),
    "GIF": promised("GIF", b"GIF87a", "<HH", 60_000, 60_000),
    "PPM": b"P5 90000 90000 255\n" + bytes(99),
    "TIFF": promised("TIFF", TIFF_SIZE, "<IHHII", 60_000, 257, 4, 1, 60_000),
    "WebP": promised("WEBP", b"\x2f", "<I", 11_999 | 11_999 << 14, lossless=True),
    "progressive JPEG": promised("JPEG", b"\xff\xc2\0\x11\x08", ">HH", 14_000, 14_000, progressive=True),
    "JPEG": promised("JPEG", b"\xff\xc0\0\x11\x08", ">HH", 65_500, 65_500),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_by_its_header(kind, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", pytest.fail)
    monkeypatch.setattr("PIL.Image.Image.load", pytest.fail)
    with pytest.raises(UnreadableImageError, match=r"\d+ x \d+ pixels are more than data.max_megapixels = 64 allows"):
        decode_image(BOMBS[kind])


def test_the_limit_is_what_is_asked_for():
    image = encode(Image.fromarray(row(16)), "PNG")  # 16 x 96
    assert decode_image(image, Decoding(max_megapixels=1536e-6)).shape == (16, 96, 3)
    with pytest.raises(UnreadableImageError, match=r"96 x 16 pixels .* = 0.001535 allows"):
        decode_image(image, Decoding(max_megapixels=1535e-6))


@pytest.mark.parametrize(
    ("most", "shape"), [(1536, (16, 96)), (1000, (8, 48)), (384, (8, 48)), (383, (4, 24)), (24, (2, 12))]
)
@pytest.mark.parametrize("exif", [False, True])
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(most, shape, exif):
    data = encode(Image.fromarray(row(16)), "JPEG", quality=100, subsampling=0)
    image = read_image(data, Decoding(exif=exif, max_megapixels=most * 1e-6))
    assert image.pixels.shape == (*shape, 3)
    assert image.reduced == (shape != (16, 96))
    np.testing.assert_allclose(image.pixels[1, shape[0] // 2 :: shape[0]].astype(int), COLORS, atol=8)


def test_a_jpeg_above_eight_times_the_side_is_refused():
    data = encode(Image.fromarray(row(16)), "JPEG")
    with pytest.raises(UnreadableImageError, match=r"more than data\.max_megapixels"):
        decode_image(data, Decoding(max_megapixels=23e-6))


@pytest.mark.parametrize(("most", "shape"), [(6144, (64, 96)), (6143, (32, 48)), (1000, (16, 24))])
def test_a_large_jpeg_2000_is_decoded_at_a_part_of_its_size(most, shape):
    image = read_image(encode(Image.fromarray(row(64)[:, :96]), "JPEG2000"), Decoding(max_megapixels=most * 1e-6))
    assert image.pixels.shape == (*shape, 3)
    assert image.reduced == (shape != (64, 96))
    np.testing.assert_allclose(image.pixels[0, [0, -1]].astype(int), COLORS[:2], atol=2)


@pytest.mark.parametrize("size", [(97, 64), (96, 65)])
def test_a_large_jpeg_2000_of_odd_size_is_refused(size):
    with pytest.raises(UnreadableImageError, match=r"more than data\.max_megapixels"):
        decode_image(encode(Image.new("RGB", size), "JPEG2000"), Decoding(max_megapixels=6143e-6))


def test_no_warning_of_pillows_reaches_the_user(recwarn):
    # Between Pillow's limit, where it warns, and twice that, where it refuses.
    assert decode_image(encode(Image.new("L", (9500, 9500)), "JPEG")).shape == (4750, 4750, 3)
    assert not recwarn.list


def test_all_kinds_are_pillows():
    Image.init()
    assert set(decode.KINDS) <= set(Image.OPEN)
