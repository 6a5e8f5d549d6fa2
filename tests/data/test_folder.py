"""Folders of images, and all kinds of bad ones."""

import itertools
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.data.image_files import BROKEN
from vpns_jax import data
from vpns_jax.data import source, survey
from vpns_jax.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def fill(path, count: int, first: int = 0, suffix: str = ".png") -> None:
    """Writes images whose pixels hold their number."""
    path.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        Image.new("RGB", (6, 4), (i, 0, 0)).save(path / f"{i:03}{suffix}")


def numbers(images: source.Source) -> list[int]:
    return [int(images[i][0][0, 0, 0]) for i in range(len(images))]


def test_three_splits(tmp_path):
    root = tmp_path / "images"
    for k, split in enumerate(("train", "valid", "test")):
        fill(root / split / "cat", 4, first=20 * k)
        fill(root / split / "dog" / "deeper", 5, first=20 * k + 10)
    sources = data.open_sources(f"folder:{root}")
    assert sources.classes == ("cat", "dog")
    assert sources.flip
    assert numbers(sources.train) == [0, 1, 2, 3, 10, 11, 12, 13, 14]
    assert numbers(sources.val) == [20, 21, 22, 23, 30, 31, 32, 33, 34]
    assert numbers(sources.test) == [40, 41, 42, 43, 50, 51, 52, 53, 54]
    np.testing.assert_array_equal(sources.test.labels, [0] * 4 + [1] * 5)
    dataset = data.load(f"folder:{root}", image_size=8)
    assert dataset.train.large.shape == (9, 9, 9, 3)
    assert dataset.train.images[:, 0, 0, 0].tolist() == numbers(sources.train)


def test_val_serves_as_test_where_there_is_none(tmp_path):
    for split, first in (("train", 0), ("val", 100)):
        fill(tmp_path / split / "cat", 10, first=first)
        fill(tmp_path / split / "dog", 10, first=first + 10)
    sources = data.open_sources(f"folder:{tmp_path}", val_fraction=0.2)
    assert numbers(sources.test) == list(range(100, 120))
    assert len(sources.val) == 4
    assert sorted(numbers(sources.train) + numbers(sources.val)) == list(range(20))


@pytest.mark.parametrize("below", ["", "train"])
def test_a_heap_is_split_by_class_and_test_stays(tmp_path, below):
    root = tmp_path / "heap"
    fill(root / below / "cat", 10)
    fill(root / below / "dog", 20, first=10)
    splits = []
    for seed in (0, 1):
        sources = data.open_sources(f"folder:{root}", val_fraction=0.25, seed=seed)
        np.testing.assert_array_equal(np.bincount(sources.test.labels), [2, 4])
        np.testing.assert_array_equal(np.bincount(sources.val.labels), [2, 4])
        splits.append([sorted(numbers(split)) for split in (sources.train, sources.val, sources.test)])
        assert sorted(itertools.chain(*splits[-1])) == list(range(30))
    assert splits[0][2] == splits[1][2]
    assert splits[0][1] != splits[1][1]


def test_bad_files_are_named_counted_and_skipped(tmp_path, caplog):
    root = tmp_path / "images"
    fill(root / "cat", 10)
    fill(root / "dog", 10, first=10, suffix=".webp")
    for k, (content, _) in enumerate(BROKEN.values()):
        (root / "cat" / f"bad{k}.jpg").write_bytes(content)
    # These files have no image suffix, so they are skipped.
    (root / "cat" / "Thumbs.db").write_bytes(b"x")
    (root / "cat" / ".hidden.jpg").write_bytes(b"x")
    (root / ".git").mkdir()
    # A suffix may not match the file's kind.
    shutil.copy(root / "cat" / "000.png", root / "cat" / "liar.jpeg")
    sources = data.open_sources(f"folder:{root}")
    assert len(BROKEN) == survey.MAX_UNREADABLE
    assert sorted(line.split(":")[0] for line in sources.skipped) == sorted(
        f"cat/bad{k}.jpg" for k in range(len(BROKEN))
    )
    assert "cat/bad0.jpg: the file is empty" in sources.skipped
    assert all(f"bad{k}.jpg" in caplog.text for k in range(len(BROKEN)))
    assert len(sources.train) + len(sources.val) + len(sources.test) == 21
    assert data.load(f"folder:{root}", image_size=8).skipped == sources.skipped

    (root / "dog" / "one_too_many.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"11 of 32 files .* at most 10 are skipped .* cat/bad0.jpg: the file is empty"):
        data.open_sources(f"folder:{root}")


def test_a_share_of_a_large_folder_may_be_unreadable(tmp_path, monkeypatch):
    """1%, however few are allowed in a small folder."""
    monkeypatch.setattr(survey, "MAX_UNREADABLE", 0)
    seen = {f"{i}.png": survey.Seen("", "") for i in range(200)}
    bad = {f"{i}.png": survey.Seen("", "", "the file is empty") for i in range(2)}
    assert survey.check_unreadable(tmp_path, seen | bad) == dict.fromkeys(bad, "the file is empty")
    bad["2.png"] = bad["1.png"]
    with pytest.raises(UserError, match=r"3 of 200 files .* at most 2 are skipped \(0, or 1% if more\)"):
        survey.check_unreadable(tmp_path, seen | bad)


def count_decoded(monkeypatch) -> list[bytes]:
    """A list to which a survey adds the content of each file that it decodes."""
    tried, read = [], survey.read_image
    monkeypatch.setattr(survey, "read_image", lambda content, *rest: tried.append(content) or read(content, *rest))
    return tried


def test_files_are_decoded_once_and_again_when_they_change(tmp_path, monkeypatch):
    root = tmp_path / "images"
    fill(root / "cat", 3)
    fill(root / "dog", 3, first=10)
    tried = count_decoded(monkeypatch)
    # As if time had passed since the files were written.
    monkeypatch.setattr(survey, "SETTLED_NS", -(10**9))
    assert not data.open_sources(f"folder:{root}").skipped
    assert len(tried) == 6
    assert not data.open_sources(f"folder:{root}").skipped
    assert len(tried) == 6
    (root / "cat" / "001.png").write_bytes(b"spoilt")
    assert data.open_sources(f"folder:{root}").skipped == ("cat/001.png: not an image of a known kind",)
    assert tried[6:] == [b"spoilt"]
    # Whether a file is readable depends on the limit.
    assert len(data.open_sources(f"folder:{root}", options=data.DecodeOptions(max_megapixels=1)).skipped) == 1
    assert len(tried) == 13


def test_a_file_that_was_just_written_is_read_again(tmp_path, monkeypatch):
    """File systems have coarse clocks: the next content may have the same time."""
    root = tmp_path / "images"
    fill(root / "cat", 3)
    fill(root / "dog", 3, first=10)
    tried = count_decoded(monkeypatch)
    data.open_sources(f"folder:{root}")
    data.open_sources(f"folder:{root}")
    assert len(tried) == 2 * 6


def test_a_file_that_goes_bad_later_is_named(tmp_path):
    root = tmp_path / "images"
    fill(root / "cat", 3)
    fill(root / "dog", 3, first=10)
    sources = data.open_sources(f"folder:{root}")
    shutil.rmtree(root / "cat")
    with pytest.raises(UserError, match=r"cat/00.\.png could be read before, but not now"):
        numbers(sources.train)


def test_errors_say_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match="'/nowhere/at/all' is not a folder"):
        data.check("folder:/nowhere/at/all")
    with pytest.raises(UserError, match="is not a folder"):
        data.check("folder:")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="a sub-folder of images for each class, at least 2; found 0"):
        data.open_sources(f"folder:{tmp_path / 'empty'}")

    root = tmp_path / "strangers"
    for split in ("train", "test"):
        fill(root / split / "cat", 3)
        fill(root / split / "dog", 3)
    fill(root / "test" / "emu", 3)
    with pytest.raises(UserError, match="classes that train lacks: emu"):
        data.open_sources(f"folder:{root}")
    shutil.rmtree(root / "test" / "emu")
    shutil.rmtree(root / "train" / "dog")
    (root / "train" / "dog").mkdir()
    with pytest.raises(UserError, match=r"without a readable image to train on in .*: dog"):
        data.open_sources(f"folder:{root}")
    (root / "training").mkdir()
    with pytest.raises(UserError, match="both train and training"):
        data.open_sources(f"folder:{root}")


def test_an_unwritable_cache_costs_only_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    fill(tmp_path / "images" / "cat", 3)
    fill(tmp_path / "images" / "dog", 3, first=10)
    # Each class has three images: one each for training, validation and test.
    assert len(data.open_sources(f"folder:{tmp_path / 'images'}").train) == 2
