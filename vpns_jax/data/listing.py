"""Lists a folder of images: its classes, the files that count as images, and all skipped files and folders.

Symbolic links to files and folders are followed; within a class, each folder is read once.
"""

import collections
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vpns_jax.data import layout
from vpns_jax.data.text import composed, printable, some
from vpns_jax.errors import UserError

SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
    # Not supported, but counted as images, so that an error says what to do with them.
    *(".heic", ".heif"),
)
# Files of operating systems, network drives and archivers. Names that begin with a dot are skipped, too.
_SYSTEM = frozenset(
    {"#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recycle", "@tmp", "__macosx", "__pycache__", "desktop.ini"}
    | {"ehthumbs.db", "icon\r", "lost+found", "system volume information", "thumbs.db", "~snapshot"}
)
# The reasons for skipping files and folders, in the order of the report.
_HIDDEN, _TWICE, _BROKEN = "hidden and system files and folders", "folders that links lead to again", "broken links"
_NO_SPLIT, _NO_CLASS, _NO_IMAGE = "folders that are no split", "images outside any class", "files of other kinds"
_SPECIAL = "pipes, sockets and devices"
_REASONS = (_NO_SPLIT, _NO_CLASS, _HIDDEN, _TWICE, _BROKEN, _SPECIAL, _NO_IMAGE)

# Reasons, and paths below the root.
Skipped = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Listing:
    """The classes and images of a folder.

    Attributes:
      classes: the classes' names, with accents composed and made printable (`text.composed`, `text.printable`).
      files: for each split, (path below the root, label) of all files that count as images, in an order that does not
        depend on the disk. In a data set without splits, all are "train".
      skipped: a line for each reason for skipping: the number of skipped files and folders, and the first of them.
    """

    classes: tuple[str, ...]
    files: dict[str, tuple[tuple[str, int], ...]]
    skipped: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Contents:
    """The sorted names in a folder; `other` holds reasons and names of skipped ones."""

    folders: tuple[str, ...]
    files: tuple[str, ...]
    other: tuple[tuple[str, str], ...]


def list_folder(root: Path) -> Listing:
    """Lists the images below a folder, without opening them.

    Args:
      root: the folder.

    Returns:
      The classes, the images and the skipped files.

    Raises:
      UserError: there are fewer than two classes; train lacks a class of val or test; it is unclear whether sub-folders
        are classes or splits; a folder cannot be read; or a link leads to a folder that contains it.
    """
    top = _scan(root)
    splits = layout.splits(
        root,
        top.folders,
        folders_in=lambda name: _scan(root / name).folders,
        has_images=lambda name: any(_images(root, name, [])),
    )
    skipped: Skipped = []
    if splits:
        _skip(skipped, "", top)
        skipped += [(_NO_SPLIT, name) for name in top.folders if name not in splits.values()]
    folders = splits or {"train": ""}
    classes = _classes(root / folders["train"])
    files = {split: _list_split(root, folder, classes, skipped) for split, folder in folders.items()}
    return Listing(tuple(map(printable, classes)), files, tuple(_report(skipped)))


def _by_class(folders: Sequence[str]) -> dict[str, list[str]]:
    """The folders of each class. Names that differ only in how accents are composed are the same class.

    Args:
      folders: names of folders.

    Returns:
      The names by composed name, sorted by it.
    """
    classes = collections.defaultdict(list)
    for name in folders:
        classes[composed(name)].append(name)
    return dict(sorted(classes.items()))


def find_images(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All images below a folder, at any depth; opens none.

    Args:
      root: the folder.

    Returns:
      The paths below it, sorted, and what was skipped, a line for each kind of thing.

    Raises:
      UserError: a folder that cannot be read, or a link to a folder that it lies in.
    """
    skipped: Skipped = []
    return tuple(sorted(_images(root, "", skipped))), tuple(_report(skipped))


def _classes(folder: Path) -> tuple[str, ...]:
    inside = _scan(folder)
    classes = tuple(_by_class(inside.folders))
    if len(classes) < 2:
        shown = f" ({some(classes)})" if classes else f", and {len(inside.files)} files"
        raise UserError(
            f"{printable(str(folder))} must have a sub-folder of images for each class, at least 2; "
            f"found {len(classes)}{shown}"
        )
    layout.check_split(folder, classes)
    return classes


def _list_split(root: Path, folder: str, classes: Sequence[str], skipped: Skipped) -> tuple[tuple[str, int], ...]:
    where, top = printable(str(root / folder)), _scan(root / folder)
    folders = _by_class(top.folders)
    strangers = sorted(folders.keys() - {*classes})
    if strangers:
        raise UserError(f"{where} has classes that train lacks: {some(strangers, 5)}")
    loose = sum(map(_is_image, top.files))
    if loose and not top.folders:
        raise UserError(
            f"{where} has {loose} images and no sub-folder for any class, so they have no labels; sort them into "
            "sub-folders, or move them away"
        )
    # A broken link may be a class on a disk that is not mounted.
    broken = [name for reason, name in top.other if reason == _BROKEN and not Path(name).suffix]
    if broken:
        raise UserError(f"{where} has links that lead nowhere: {some(broken)}; mend or remove them")
    _skip(skipped, folder, top)
    images = []
    for label, name in enumerate(classes):
        for place in folders.get(name, ()):
            images += [(path, label) for path in _images(root, _join(folder, place), skipped)]
    # The order must be the same in a copy of the folder whose names are composed differently.
    return tuple(sorted(images, key=lambda image: (composed(image[0]), image)))


def _images(root: Path, folder: str, skipped: Skipped) -> Iterator[str]:
    """Images at any depth below root/folder, as paths below root; all other files are added to `skipped`."""
    seen: set[str] = set()
    # Real paths, because a folder such as "." has no parents in its name. Paths in errors are as the user wrote them.
    start = Path(os.path.realpath(root)) / folder
    # No recursion: folders may be nested deeper than Python's recursion limit.
    waiting = [(folder, os.path.realpath(start), tuple(map(os.path.realpath, start.parents)))]
    while waiting:
        path, real, above = waiting.pop()
        if real in above:
            raise UserError(f"{printable(str(root / path))} is a link to a folder that contains it; remove it")
        if real in seen:
            skipped.append((_TWICE, path))
            continue
        seen.add(real)
        contents = _scan(root / path)
        for name in reversed(contents.folders):
            inside = _join(path, name)
            waiting.append((inside, _real(root / inside, real), (real, *above)))
        for reason, name in contents.other:
            # A broken link to an image is counted with the unreadable images.
            if reason == _BROKEN and _is_image(name):
                yield _join(path, name)
            else:
                skipped.append((reason, _join(path, name)))
        for name in contents.files:
            if _is_image(name):
                yield _join(path, name)
            else:
                skipped.append((_NO_IMAGE, _join(path, name)))


def _real(path: Path, parent: str) -> str:
    """The path without links; `parent` is the real path of its parent folder."""
    return os.path.realpath(path) if path.is_symlink() else str(Path(parent) / path.name)


def _scan(folder: Path) -> _Contents:
    folders: list[str] = []
    files: list[str] = []
    other: list[tuple[str, str]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                reason = _why_skipped(entry)
                if reason:
                    other.append((reason, entry.name))
                else:
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise UserError(f"{printable(str(folder))} cannot be read: {error.strerror}") from error
    return _Contents(tuple(sorted(folders)), tuple(sorted(files)), tuple(sorted(other)))


def _why_skipped(entry: os.DirEntry[str]) -> str | None:
    if entry.name.startswith(".") or entry.name.lower() in _SYSTEM:
        return _HIDDEN
    if entry.is_symlink() and not Path(entry.path).exists():
        return _BROKEN
    return None if entry.is_dir() or entry.is_file() else _SPECIAL


def _skip(skipped: Skipped, folder: str, top: _Contents) -> None:
    """Adds all files beside the sub-folders to `skipped`."""
    skipped += [(reason, _join(folder, name)) for reason, name in top.other]
    skipped += [(_NO_CLASS if _is_image(name) else _NO_IMAGE, _join(folder, name)) for name in top.files]


def _report(skipped: Skipped) -> Iterator[str]:
    for reason in _REASONS:
        names = [name for why, name in skipped if why == reason]
        if names:
            kinds = f" ({_suffixes(names)})" if reason == _NO_IMAGE else ""
            yield f"skipped {len(names)} {reason}{kinds}: {some(names)}"


def _suffixes(names: Sequence[str]) -> str:
    counts = collections.Counter(Path(name).suffix.lower() or "no suffix" for name in names).most_common()
    shown = ", ".join(f"{printable(suffix)} {count}" for suffix, count in counts[:5])
    return shown + (", ..." if len(counts) > 5 else "")


def _is_image(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
