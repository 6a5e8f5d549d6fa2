"""Any folder of images: `folder:/path`, where a class is a sub-folder.

    /path/train/CLASS/...  and, where there are, /path/val/CLASS/...  /path/test/CLASS/...
    /path/CLASS/...        one heap: a fifth of each class becomes test, the same for every seed

Without test/, val/ serves as the test split, as ImageNet's does, and validation is held out of train; with neither,
train/ is treated as one heap. Images are found at any depth below their class.
"""

import dataclasses
import functools
import hashlib
from pathlib import Path

import numpy as np

from vpns_jax.data import survey
from vpns_jax.data.decode import UnreadableImageError, decode_image
from vpns_jax.data.decoding import DEFAULT, DecodeOptions, Decoding
from vpns_jax.data.source import Original, Subset, stratified_holdout
from vpns_jax.errors import UserError

PREFIX = "folder:"
SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}) | {
    # Not read, but meant as images: what to do with them is said.
    ".heic",
    ".heif",
}
_SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
# Share of each class that is test where the folder has no split of its own.
TEST_FRACTION = 0.2
_TEST_SEED = 0


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
    """Image files `paths` [n], below `root`, with their labels int32 [n], decoded as `decoding` says."""

    root: str
    paths: tuple[str, ...]
    labels: np.ndarray
    decoding: Decoding

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        path = Path(self.root, self.paths[index])
        try:
            return decode_image(path.read_bytes(), self.decoding), int(self.labels[index])
        except (OSError, UnreadableImageError) as error:
            raise UserError(f"{path} could be read before and cannot now: {error}") from error


def check(name: str) -> Path:
    """The path in `folder:/path`; raises `UserError` unless it is a folder."""
    path = Path(name.removeprefix(PREFIX)).expanduser()
    if name == PREFIX or not path.is_dir():
        raise UserError(f"data set {name!r}: {str(path)!r} is not a folder; write {PREFIX}/path/to/images")
    return path.resolve()


def identity(name: str) -> str:
    """Changes when a file of the folder does, by its path, size or time."""
    root = check(name)
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    listing = "".join(f"{path.relative_to(root).as_posix()} {_stamp(path)}\n" for path in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def open_folder(name: str, options: DecodeOptions = DEFAULT, *, progress: bool = False) -> Original:
    """The images below a folder, every one of which has been decoded once to see whether it can be.

    What cannot be read is named, counted and left out; `survey` remembers the result.

    Args:
      name: `folder:/path`.
      options: how they are decoded; cameras' notes on orientation are followed unless it says otherwise.
      progress: whether to show a progress bar.

    Raises:
      UserError: no such folder, no images, fewer than two classes, a class without images, classes in val or
        test that train lacks, or too many unreadable files.
    """
    root = check(name)
    found = {split: _split_folder(root, split) for split in _SPLITS}
    folders = {split: path for split, path in found.items() if path} if found["train"] else {"train": root}
    classes = _classes(folders["train"])
    listing = {split: _list(root, path, classes) for split, path in folders.items()}
    stamps = {path: _stamp(root / path) for files in listing.values() for path, _ in files}
    seen = survey.survey(root, stamps, max_megapixels=options.max_megapixels, progress=progress)
    unreadable = survey.check_unreadable(root, seen)
    decoding = options.decide(exif=True, greys=survey.grey_range(seen.values()))
    sources = {split: _source(root, files, unreadable, decoding) for split, files in listing.items()}
    _check_sources(root, sources, classes)

    skipped = tuple(f"{path}: {reason}" for path, reason in unreadable.items())
    notes = survey.notes(seen, decoding)
    original = functools.partial(Original, classes, flip=True, skipped=skipped, notes=notes, decoding=decoding)
    train, val, test = (sources.get(split) for split in ("train", "val", "test"))
    assert train is not None
    if test is not None:
        return original(train=train, test=test, val=val)
    if val is not None:
        return original(train=train, test=val)
    kept, held = stratified_holdout(train.labels, TEST_FRACTION, seed=_TEST_SEED)
    return original(train=Subset(train, kept), test=Subset(train, held))


def _split_folder(root: Path, split: str) -> Path | None:
    candidates = [root / word for word in _SPLITS[split] if (root / word).is_dir()]
    if len(candidates) > 1:
        raise UserError(f"{root} has both {' and '.join(path.name for path in candidates)}; keep one")
    return candidates[0] if candidates else None


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."))
    if len(classes) < 2:
        raise UserError(f"{folder} must have a sub-folder of images for each class, at least 2; found {len(classes)}")
    return classes


def _list(root: Path, folder: Path, classes: tuple[str, ...]) -> list[tuple[str, int]]:
    """(path below root, label) of every image file in a split, in an order that does not depend on the disk."""
    strangers = sorted({path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."} - {*classes})
    if strangers:
        raise UserError(f"{folder} has classes that train lacks: {', '.join(strangers[:5])}")
    files = []
    for label, name in enumerate(classes):
        for path in (folder / name).rglob("*"):
            if path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file():
                files.append((path.relative_to(root).as_posix(), label))
    return sorted(files)


def _source(root: Path, files: list[tuple[str, int]], unreadable: dict[str, str], decoding: Decoding) -> FolderSource:
    good = [(path, label) for path, label in files if path not in unreadable]
    labels = np.array([label for _, label in good], np.int32)
    return FolderSource(str(root), tuple(path for path, _ in good), labels, decoding)


def _check_sources(root: Path, sources: dict[str, FolderSource], classes: tuple[str, ...]) -> None:
    counts = np.bincount(sources["train"].labels, minlength=len(classes))
    if (counts == 0).any():
        bare = ", ".join(classes[i] for i in np.flatnonzero(counts == 0)[:5])
        raise UserError(f"classes without a readable image to train on in {root}: {bare}")
    empty = [split for split, source in sources.items() if not len(source)]
    if empty:
        raise UserError(f"no readable images in {' and '.join(empty)} of {root}")


def _stamp(path: Path) -> str:
    """Changes when the file does."""
    stat = path.stat()
    return f"{stat.st_size}-{stat.st_mtime_ns}"
