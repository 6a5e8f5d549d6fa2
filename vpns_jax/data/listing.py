"""What lies below a folder of images: its classes, the files that count as images, and all that is passed over.

Symbolic links are followed, to files and to folders; the same folder is read once in a class.
"""

import collections
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vpns_jax.data import layout
from vpns_jax.data.text import printable, some
from vpns_jax.errors import UserError

SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
    # Not read, but meant as images: what to do with them is said.
    *(".heic", ".heif"),
)
# What operating systems, network drives and archivers leave behind; names that begin with a point are hidden anyway.
_SYSTEM = frozenset(
    {"#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recycle", "@tmp", "__macosx", "__pycache__", "desktop.ini"}
    | {"ehthumbs.db", "icon\r", "lost+found", "system volume information", "thumbs.db", "~snapshot"}
)
# Why something is passed over, in the order in which it is told.
_HIDDEN, _TWICE, _BROKEN = "hidden and system files and folders", "folders that links lead to again", "broken links"
_NO_SPLIT, _NO_CLASS, _NO_IMAGE = "folders that are no split", "images outside any class", "files of other kinds"
_SPECIAL = "pipes, sockets and devices"
_REASONS = (_NO_SPLIT, _NO_CLASS, _HIDDEN, _TWICE, _BROKEN, _SPECIAL, _NO_IMAGE)

# Why and what, a path below the root.
Passed = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Listing:
    """The classes and images of a folder.

    Attributes:
      classes: the classes' names, as `text.printable` has them.
      files: for each split that there is a folder of, (path below the root, label) of every file that counts as an
        image, in an order that does not depend on the disk; a heap of classes is all "train".
      passed: a line for each kind of thing that was passed over: how many, and the first of them.
    """

    classes: tuple[str, ...]
    files: dict[str, tuple[tuple[str, int], ...]]
    passed: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Contents:
    """Names in one folder, sorted."""

    folders: tuple[str, ...]
    files: tuple[str, ...]
    other: tuple[tuple[str, str], ...]


def list_folder(root: Path) -> Listing:
    """Lists the images below a folder; opens none.

    Raises:
      UserError: fewer than two classes, classes in val or test that train lacks, sub-folders that may be classes or
        splits, a folder that cannot be read, a link to a folder that it lies in.
    """
    top = _scan(root)
    splits = layout.splits(
        root,
        top.folders,
        folders_in=lambda name: _scan(root / name).folders,
        has_images=lambda name: any(_images(root, name, [])),
    )
    passed: Passed = []
    if splits:
        _pass_over(passed, "", top)
        passed += [(_NO_SPLIT, name) for name in top.folders if name not in splits.values()]
    folders = splits or {"train": ""}
    classes = _classes(root / folders["train"])
    files = {split: _list_split(root, folder, classes, passed) for split, folder in folders.items()}
    return Listing(tuple(map(printable, classes)), files, tuple(_told(passed)))


def _classes(folder: Path) -> tuple[str, ...]:
    found = _scan(folder)
    if len(found.folders) < 2:
        inside = f" ({some(found.folders)})" if found.folders else f", and {len(found.files)} files"
        raise UserError(
            f"{printable(str(folder))} must have a sub-folder of images for each class, at least 2; "
            f"found {len(found.folders)}{inside}"
        )
    layout.check_split(folder, found.folders)
    return found.folders


def _list_split(root: Path, folder: str, classes: Sequence[str], passed: Passed) -> tuple[tuple[str, int], ...]:
    where, top = printable(str(root / folder)), _scan(root / folder)
    strangers = sorted({*top.folders} - {*classes})
    if strangers:
        raise UserError(f"{where} has classes that train lacks: {some(strangers, 5)}")
    loose = sum(map(_is_image, top.files))
    if loose and not top.folders:
        raise UserError(
            f"{where} has {loose} images and no sub-folder for any class, so they have no labels; sort them into "
            "sub-folders, or move them away"
        )
    # A class may lie on a disk that is not there.
    broken = [name for reason, name in top.other if reason == _BROKEN and not Path(name).suffix]
    if broken:
        raise UserError(f"{where} has links that lead nowhere: {some(broken)}; mend or remove them")
    _pass_over(passed, folder, top)
    found = []
    for label, name in enumerate(classes):
        if name in top.folders:
            found += [(path, label) for path in _images(root, _join(folder, name), passed)]
    return tuple(sorted(found))


def _images(root: Path, folder: str, passed: Passed) -> Iterator[str]:
    """Images at any depth below root/folder, paths below root; notes in `passed` what is none."""
    seen: set[str] = set()
    # No recursion: folders may lie deeper than Python's calls go.
    waiting = [(folder, tuple(map(os.path.realpath, (root / folder).parents)))]
    while waiting:
        path, above = waiting.pop()
        real = _real(root / path, above)
        if real in above:
            raise UserError(f"{printable(str(root / path))} is a link to a folder that it lies in; remove it")
        if real in seen:
            passed.append((_TWICE, path))
            continue
        seen.add(real)
        contents = _scan(root / path)
        waiting += [(_join(path, name), (real, *above)) for name in reversed(contents.folders)]
        for reason, name in contents.other:
            # An image that should be there: to be counted with those that cannot be read.
            if reason == _BROKEN and _is_image(name):
                yield _join(path, name)
            else:
                passed.append((reason, _join(path, name)))
        for name in contents.files:
            if _is_image(name):
                yield _join(path, name)
            else:
                passed.append((_NO_IMAGE, _join(path, name)))


def _real(path: Path, above: Sequence[str]) -> str:
    """The path without links, once that of the folder that it lies in is known, which `above` begins with."""
    if path.is_symlink():
        return os.path.realpath(path)
    return str(Path(above[0]) / path.name)


def _scan(folder: Path) -> _Contents:
    folders: list[str] = []
    files: list[str] = []
    other: list[tuple[str, str]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                reason = _why_passed(entry)
                if reason:
                    other.append((reason, entry.name))
                else:
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise UserError(f"{printable(str(folder))} cannot be read: {error.strerror}") from error
    return _Contents(tuple(sorted(folders)), tuple(sorted(files)), tuple(sorted(other)))


def _why_passed(entry: os.DirEntry[str]) -> str | None:
    if entry.name.startswith(".") or entry.name.lower() in _SYSTEM:
        return _HIDDEN
    if entry.is_symlink() and not Path(entry.path).exists():
        return _BROKEN
    return None if entry.is_dir() or entry.is_file() else _SPECIAL


def _pass_over(passed: Passed, folder: str, top: _Contents) -> None:
    """Notes what lies beside the sub-folders that are read."""
    passed += [(reason, _join(folder, name)) for reason, name in top.other]
    passed += [(_NO_CLASS if _is_image(name) else _NO_IMAGE, _join(folder, name)) for name in top.files]


def _told(passed: Passed) -> Iterator[str]:
    for reason in _REASONS:
        names = [name for why, name in passed if why == reason]
        if names:
            kinds = f" ({_suffixes(names)})" if reason == _NO_IMAGE else ""
            yield f"passed over {len(names)} {reason}{kinds}: {some(names)}"


def _suffixes(names: Sequence[str]) -> str:
    counts = collections.Counter(Path(name).suffix.lower() or "no suffix" for name in names).most_common()
    shown = ", ".join(f"{printable(suffix)} {count}" for suffix, count in counts[:5])
    return shown + (", ..." if len(counts) > 5 else "")


def _is_image(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
