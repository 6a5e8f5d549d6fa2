"""Makes folders of images as people have them, and notes what must be read from them."""

import dataclasses
import os
import random
import shutil
from pathlib import Path

from PIL import Image

from tests.data.image_files import BROKEN

NAMES = ("cat", "dog", "犬", "🐶", "a b", "new\nline", "caf\udce9", "x" * 200, "$math$", "back\\slash", "Ünïcode")
SPLITS = (
    ("train", "val", "test"),
    ("Train", "Valid", "Test"),
    ("TRAINING", "VALIDATION", "TESTING"),
    ("training_set", "validation_set", "test_set"),
    ("trn", "dev", "tst"),
    ("train-images", "Val Images", "TestData"),
)
HIDDEN = (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".AppleDouble", "$RECYCLE.BIN", "__pycache__", ".git")
# Sub-folders that are not classes, or not a complete set of splits.
UNCLEAR = (
    ("test", "val"),
    ("Test", "cars"),
    ("images", "masks"),
    ("JPEGImages", "Annotations"),
    ("seg_train", "seg_test"),
    ("train2017", "val2017"),
    ("fold1", "fold2", "fold3"),
    ("train", "Train"),
    ("archive",),
    (),
)


@dataclasses.dataclass
class Folder:
    """A folder that is being made, and its expected images by (place of the split, class)."""

    root: Path
    draw: random.Random
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    right: dict[tuple[int, str], int]
    unreadable: int = 0
    images: int = 0

    def image(self, path: Path) -> None:
        """Makes an image that differs from all others."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.images += 1
        Image.new("RGB", (3, 2), (self.images, self.draw.randrange(256), 0)).save(path, "PNG")

    def place(self) -> tuple[tuple[int, str], Path]:
        """Makes a class in one of the splits; returns its name and its folder."""
        number, name = self.draw.choice(sorted(self.right))
        return (number, name), self.root / self.splits[number] / name


def start(root: Path, draw: random.Random) -> Folder:
    """Makes two to four classes, without splits or in three splits with odd names."""
    splits = draw.choice((("",), draw.choice(SPLITS), draw.choice(SPLITS)))
    classes = tuple(draw.sample(NAMES, draw.randrange(2, 5)))
    folder = Folder(root, draw, splits, classes, {})
    for number, split in enumerate(splits):
        for place, name in enumerate(classes):
            # The same sub-folder in two classes would make them look like splits.
            deep = f"deep{place}"
            folder.right[number, name] = draw.randrange(5, 8)
            for k in range(folder.right[number, name]):
                folder.image(root / split / name / (deep * (k % 2)) / f"{k}.png")
    return folder


def hidden(folder: Folder) -> None:
    _, path = folder.place()
    folder.image(folder.draw.choice((path, folder.root)) / folder.draw.choice(HIDDEN) / "copy.png")


def linked(folder: Folder) -> None:
    key, path = folder.place()
    far = folder.root.parent / "far" / str(folder.images)
    folder.image(far / "1.png")
    if folder.draw.random() < 0.5:
        (path / f"link{folder.images}").symlink_to(far)
    else:
        (path / f"link{folder.images}.png").symlink_to(far / "1.png")
    folder.right[key] += 1


def dangling(folder: Folder) -> None:
    _, path = folder.place()
    (path / f"gone{folder.images}").symlink_to("/nowhere/at/all")
    folder.images += 1


def unreadable(folder: Folder) -> None:
    """Adds a few unreadable images, which may be left out."""
    if folder.unreadable:
        return
    _, path = folder.place()
    content, _ = BROKEN[folder.draw.choice(("empty", "text", "html", "cut PNG", "cut JPEG", "only a header"))]
    (path / "bad.png").write_bytes(content)
    folder.unreadable += 1


def other_kinds(folder: Folder) -> None:
    _, path = folder.place()
    (path / folder.draw.choice(("notes.txt", "a.RAW", "Thumbs.db", "nothing", "._1.png"))).write_bytes(b"nothing")


def odd_file(folder: Folder) -> None:
    key, path = folder.place()
    folder.image(path / f"{folder.draw.choice(NAMES)[:50]}{folder.images}.PNG")
    folder.right[key] += 1


HARMLESS = (hidden, linked, dangling, unreadable, other_kinds, odd_file)


def loop(folder: Folder) -> None:
    (folder.place()[1] / "loop").symlink_to("..")


def bare_class(folder: Folder) -> None:
    (folder.root / folder.splits[0] / "bare").mkdir()


def class_unreadable(folder: Folder) -> None:
    """Lists all images of a class, also behind links."""
    (_, name), _ = folder.place()
    for split in folder.splits:
        for where, _, files in os.walk(folder.root / split / name, followlinks=True):
            for path in (Path(where, file) for file in files):
                if path.exists():
                    path.write_bytes(b"spoilt")


def stranger(folder: Folder) -> None:
    """Adds a class that training does not have or, without splits, a broken link in place of a class."""
    if len(folder.splits) == 1:
        (folder.root / "emu").symlink_to("/nowhere")
    else:
        folder.image(folder.root / folder.splits[2] / "emu" / "1.png")


def unclear(folder: Folder) -> None:
    shutil.rmtree(folder.root)
    folder.root.mkdir()
    for name in folder.draw.choice(UNCLEAR):
        for k in range(3):
            folder.image(folder.root / name / "cat" / f"{k}.png")
            folder.image(folder.root / name / "dog" / f"{k}.png")


FATAL = (loop, bare_class, class_unreadable, stranger, unclear)
