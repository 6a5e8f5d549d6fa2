"""Real folders: hidden files, links, names that are not valid text."""

import inspect
import os
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.test_layout import make, sets
from vpns_jax.data import listing
from vpns_jax.data.text import printable
from vpns_jax.errors import UserError


def read(root) -> list[str]:
    return [path for path, _ in listing.list_folder(root).files["train"]]


@pytest.mark.parametrize(
    "hidden",
    [
        ".ipynb_checkpoints",
        "@eaDir",
        "__MACOSX",
        ".AppleDouble",
        "$RECYCLE.BIN",
        "#recycle",
        "lost+found",
        "__pycache__",
    ],
)
@pytest.mark.parametrize("where", ["", "cat/", "train/", "train/cat/", "train/cat/deep/"])
def test_hidden_and_system_folders_are_passed_over(tmp_path, hidden, where):
    top = "train/" if where.startswith("train") else ""
    make(tmp_path, f"{top}cat/1.png", f"{top}dog/1.png", f"{where}{hidden}/cat/1.png", f"{where}{hidden}/2.png")
    assert read(tmp_path) == [f"{top}cat/1.png", f"{top}dog/1.png"]
    assert listing.list_folder(tmp_path).skipped == (f"skipped 1 hidden and system files and folders: {where}{hidden}",)


def test_what_is_no_image_is_counted_and_named(tmp_path):
    others = ["cat/._1.png", "cat/.DS_Store", "dog/Thumbs.db", "cat/desktop.ini"]
    kinds = ["cat/a.RAW", "cat/b.raw", "dog/c.raw", "dog/notes.txt", "dog/nothing"]
    make(tmp_path, "cat/1.PNG", "dog/1.jpeg", *others, *kinds)
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    listed = listing.list_folder(tmp_path)
    assert listed.files["train"] == (("cat/1.PNG", 0), ("dog/1.jpeg", 1))
    assert listed.skipped == (
        "skipped 4 hidden and system files and folders: cat/.DS_Store, cat/._1.png, cat/desktop.ini and 1 more",
        "skipped 1 pipes, sockets and devices: cat/pipe.png",
        "skipped 5 files of other kinds (.raw 3, .txt 1, no suffix 1): cat/a.RAW, cat/b.raw, dog/c.raw and 2 more",
    )


def test_links_are_followed(tmp_path):
    root, far = tmp_path / "images", tmp_path / "far"
    make(root, "cat/1.png", "dog/1.png")
    make(far, "more/2.png", "more/deep/3.png", "one.png", "emu/4.png")
    (root / "cat" / "linked").symlink_to(far / "more")
    (root / "dog" / "5.png").symlink_to(far / "one.png")
    (root / "emu").symlink_to(far / "emu")
    assert read(root) == [
        "cat/1.png",
        "cat/linked/2.png",
        "cat/linked/deep/3.png",
        "dog/1.png",
        "dog/5.png",
        "emu/4.png",
    ]
    assert listing.list_folder(root).classes == ("cat", "dog", "emu")


@pytest.mark.parametrize("target", [".", "..", "../..", "deep"])
def test_loops_are_refused(tmp_path, target):
    make(tmp_path, "cat/deep/1.png", "dog/1.png")
    (tmp_path / "cat" / "deep" / "loop").symlink_to(target if target != "deep" else tmp_path / "cat" / "deep")
    with pytest.raises(UserError, match="cat/deep/loop is a link to a folder that contains it; remove it"):
        listing.list_folder(tmp_path)


@pytest.mark.parametrize("root", [".", "../cat", "../../images/cat"])
def test_a_folder_may_be_named_by_dots(tmp_path, monkeypatch, root):
    make(tmp_path, "images/cat/1.png", "images/cat/deep/2.png")
    monkeypatch.chdir(tmp_path / "images" / "cat")
    assert listing.find_images(Path(root)) == (("1.png", "deep/2.png"), ())


def test_links_below_dots_are_told_from_folders(tmp_path, monkeypatch):
    make(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "c").symlink_to("a")
    monkeypatch.chdir(tmp_path / "b")
    assert listing.find_images(Path("..")) == (
        ("a/1.png", "b/2.png"),
        ("skipped 1 folders that links lead to again: c",),
    )
    (tmp_path / "b" / "back").symlink_to("..")
    with pytest.raises(UserError, match=r"^\.\./b/back is a link to a folder that contains it"):
        listing.find_images(Path(".."))


def test_a_folder_is_read_once_in_a_class(tmp_path):
    make(tmp_path, "cat/a/1.png", "dog/1.png")
    # Two links in each of thirty folders: a billion paths to the last one.
    far = tmp_path / ".far"
    make(far, "30/2.png")
    for k in range(30):
        (far / str(k)).mkdir()
        for way in ("x", "y"):
            (far / str(k) / way).symlink_to(far / str(k + 1))
    (tmp_path / "cat" / "far").symlink_to(far / "0")
    assert len(read(tmp_path)) == 3
    assert "skipped 30 folders that links lead to again" in "".join(listing.list_folder(tmp_path).skipped)


def test_links_that_lead_nowhere(tmp_path):
    make(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "cat" / "gone.png").symlink_to("/nowhere.png")
    (tmp_path / "cat" / "self.png").symlink_to("self.png")
    (tmp_path / "cat" / "gone").symlink_to("/nowhere")
    # Broken links to images count as unreadable images.
    assert read(tmp_path) == ["cat/1.png", "cat/gone.png", "cat/self.png", "dog/1.png"]
    assert listing.list_folder(tmp_path).skipped == ("skipped 1 broken links: cat/gone",)
    (tmp_path / "emu").symlink_to("/nowhere")
    with pytest.raises(UserError, match="has links that lead nowhere: emu; mend or remove them"):
        listing.list_folder(tmp_path)


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    make(tmp_path, "cat/deep/1.png", "dog/1.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="cat/deep cannot be read: Permission denied"):
        listing.list_folder(tmp_path)


def test_folders_deeper_than_calls_go(tmp_path):
    make(tmp_path, "cat/1.png", "dog/1.png", f"cat/{'d/' * 100}2.png")
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 80)
    try:
        assert len(read(tmp_path)) == 3
    finally:
        sys.setrecursionlimit(usual)


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_names_that_differ_in_how_accents_are_composed_are_one_class(tmp_path):
    make(tmp_path, f"train/{DECOMPOSED}/1.png", "train/cafe/1.png", f"test/{COMPOSED}/2.png", "test/cafe/2.png")
    listed = listing.list_folder(tmp_path)
    assert listed.classes == ("cafe", COMPOSED)
    assert listed.files == {
        "train": (("train/cafe/1.png", 0), (f"train/{DECOMPOSED}/1.png", 1)),
        "test": (("test/cafe/2.png", 0), (f"test/{COMPOSED}/2.png", 1)),
    }


def test_folders_of_one_class_are_read_both(tmp_path):
    make(tmp_path, f"{COMPOSED}/1.png", f"{DECOMPOSED}/2.png", "dog/1.png")
    listed = listing.list_folder(tmp_path)
    assert listed.classes == (COMPOSED, "dog")
    assert listed.files["train"] == ((f"{COMPOSED}/1.png", 0), (f"{DECOMPOSED}/2.png", 0), ("dog/1.png", 1))
    make(tmp_path / "two", f"{COMPOSED}/1.png", f"{DECOMPOSED}/2.png")
    with pytest.raises(UserError, match="at least 2; found 1"):
        listing.list_folder(tmp_path / "two")


def test_parts_of_a_set_are_told_however_their_names_are_composed(tmp_path):
    make(tmp_path, f"fold1/{COMPOSED}/1.png", f"fold2/{DECOMPOSED}/1.png")
    with pytest.raises(UserError, match="fold1, fold2, with the same folders in them"):
        listing.list_folder(tmp_path)


LATIN = os.fsdecode(b"caf\xe9")


def test_names_that_are_no_text_are_made_printable_and_stay_apart(tmp_path):
    make(
        tmp_path,
        f"{LATIN}/1.png",
        "caf\\xe9/1.png",
        "café/1.png",
        "new\nline/1.png",
        f"cat/{LATIN}.png",
        f"cat/{LATIN}.x",
    )
    listed = listing.list_folder(tmp_path)
    assert set(listed.classes) == {"cat", "café", "caf\\xe9", "caf\\x5cxe9", "new\\x0aline"}
    # The listed path is the original name, which opens the file.
    assert (tmp_path / f"cat/{LATIN}.png").is_file()
    assert f"cat/{LATIN}.png" in read(tmp_path)
    assert listed.skipped == ("skipped 1 files of other kinds (.x 1): cat/caf\\xe9.x",)


@pytest.mark.parametrize("name", ["犬", "كلب", "🐶", "👨‍👩‍👧", "Ünïcode", "a b", "back\\slash", "$math$", "\\x"])
def test_names_that_are_text_stay_as_they_are(name):
    assert printable(name) == name


@given(st.binary(min_size=1, max_size=12), st.binary(min_size=1, max_size=12))
def test_printable_is_text_on_one_line_and_keeps_names_apart(first, second):
    escaped, other = (printable(os.fsdecode(name)) for name in (first, second))
    assert escaped.encode().decode() == escaped
    assert not {unicodedata.category(c) for c in escaped} & {"Cc", "Cs", "Zl", "Zp"}
    assert (escaped == other) == (first == second)


@given(st.text(alphabet="\\x5ce9\n\udce9", max_size=8), st.text(alphabet="\\x5ce9\n\udce9", max_size=8))
def test_names_made_of_pieces_of_escapes_stay_apart(first, second):
    assert (printable(first) == printable(second)) == (first == second)


def test_errors_are_short_whatever_the_names(tmp_path):
    make(tmp_path, *sets("train"), *(f"test/{k}{'x' * 200}\n/1.png" for k in range(20)))
    with pytest.raises(UserError) as caught:
        listing.list_folder(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) - len(str(tmp_path)) < 350
