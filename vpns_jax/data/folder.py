"""Any folder of images: `folder:/path`, where a class is a sub-folder.

    /path/train/CLASS/...  optionally with /path/val/CLASS/... and /path/test/CLASS/...
    /path/CLASS/...        no splits: a fifth of each class becomes the test split, the same for every seed

Without test/, val/ serves as the test split, as for ImageNet, and a validation split is held out of train/. Without
both, a test split is held out of train/, too. Images are found at any depth below their class. `layout.py` decides
whether sub-folders are splits or classes.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vpns_jax.data import duplicates, survey
from vpns_jax.data.decode import UnreadableImageError, decode_image
from vpns_jax.data.decoding import DEFAULT, DecodeOptions, Decoding
from vpns_jax.data.listing import Listing, list_folder
from vpns_jax.data.source import Original, stratified_holdout
from vpns_jax.data.text import brief, printable
from vpns_jax.errors import UserError

PREFIX = "folder:"
# The share of each class in the test split, if the folder itself has no splits.
TEST_FRACTION = 0.2
_TEST_SEED = 0


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
    """Image files of a folder.

    Attributes:
      root: the folder.
      paths: the n files' paths below the folder.
      labels: int32 `[n]`.
      decoding: how they are decoded.
    """

    root: str
    paths: tuple[str, ...]
    labels: np.ndarray
    decoding: Decoding

    def take(self, indices: np.ndarray) -> "FolderSource":
        """The images at `indices`, int `[m]`, in that order."""
        paths = tuple(self.paths[i] for i in indices.tolist())
        return dataclasses.replace(self, paths=paths, labels=self.labels[indices])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        path = Path(self.root, self.paths[index])
        try:
            return decode_image(path.read_bytes(), self.decoding), int(self.labels[index])
        except (OSError, UnreadableImageError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{printable(str(path))} could be read before, but not now: {reason}") from error


def check(name: str) -> Path:
    """The path in `folder:/path`.

    Args:
      name: `folder:/path`.

    Returns:
      The resolved path.

    Raises:
      UserError: the path is no folder.
    """
    try:
        path = Path(name.removeprefix(PREFIX)).expanduser()
        if name != PREFIX and path.is_dir():
            return path.resolve()
    # The path names an unknown user, is too long, or is a link to itself.
    except (OSError, RuntimeError):
        pass
    where = name.removeprefix(PREFIX)
    shown = printable(where) if len(where) < 200 else brief(printable(where))
    raise UserError(f"data set {PREFIX}{shown!r} is not a folder; write {PREFIX}/path/to/images")


def contents(name: str, options: DecodeOptions = DEFAULT) -> Iterator[bytes]:
    """Describes the data in a folder: class names, labels and digests of all images by split, and the decoding.

    A copy of the folder elsewhere has the same description. Skipped files do not change it.

    Args:
      name: `folder:/path`.
      options: how images are decoded.

    Yields:
      Bytes; their digest identifies the data.

    Raises:
      UserError: as `open_folder`.
    """
    folder = _read(check(name), options, progress=False)
    yield json.dumps(folder.decoding.to_json()).encode()
    yield f"{len(folder.listing.classes)} classes\n".encode()
    yield from (f"{name}\n".encode() for name in folder.listing.classes)
    for split, source in sorted(folder.sources.items()):
        yield f"{split}: {len(source)}\n".encode()
        yield from (f"{member.label} {member.digest}\n".encode() for member in folder.members(source))


def open_folder(name: str, options: DecodeOptions = DEFAULT, *, progress: bool = False) -> Original:
    """The images below a folder. Each image is decoded once, to find out whether it is readable.

    Unreadable files are logged and left out; `survey` remembers the result. The attribute `notes` reports skipped files
    and harmful duplicates.

    Args:
      name: `folder:/path`.
      options: how images are decoded; by default, EXIF's orientation is applied.
      progress: whether to show a progress bar.

    Returns:
      The data set.

    Raises:
      UserError: there is no such folder, `list_folder` refuses it, a class has no images, or too many files are
        unreadable.
    """
    folder = _read(check(name), options, progress=progress)
    sources = folder.sources
    if sources.keys() == {"train"}:
        train = sources["train"]
        kept, held = stratified_holdout(train.labels, TEST_FRACTION, seed=_TEST_SEED)
        sources = {"train": train.take(kept), "test": train.take(held)}
    test = sources.get("test", sources.get("val"))
    assert test is not None
    copies = duplicates.report({split: folder.members(source) for split, source in sources.items()})
    return Original(
        folder.listing.classes,
        flip=True,
        train=sources["train"],
        test=test,
        val=sources.get("val") if "test" in sources else None,
        skipped=tuple(f"{printable(path)}: {reason}" for path, reason in folder.unreadable.items()),
        notes=(*survey.notes(folder.seen, folder.decoding), *folder.listing.skipped, *copies),
        decoding=folder.decoding,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Folder:
    """The contents of a folder: facts about each file, unreadable files with reasons, readable files by split."""

    listing: Listing
    seen: dict[str, survey.Seen]
    unreadable: dict[str, str]
    decoding: Decoding
    sources: dict[str, FolderSource]

    def members(self, source: FolderSource) -> list[duplicates.Member]:
        """The images of `source`, with the digests of their bytes."""
        return [
            duplicates.Member(path, label, self.seen[path].digest)
            for path, label in zip(source.paths, source.labels.tolist(), strict=True)
        ]


def _read(root: Path, options: DecodeOptions, *, progress: bool) -> _Folder:
    listing = list_folder(root)
    paths = [path for files in listing.files.values() for path, _ in files]
    seen = survey.survey(root, paths, max_megapixels=options.max_megapixels, progress=progress)
    unreadable = survey.check_unreadable(root, seen)
    decoding = options.decide(exif=True, greys=survey.grey_range(seen.values()))
    sources = {split: _source(root, files, unreadable, decoding) for split, files in listing.files.items()}
    _check_sources(root, sources, listing)
    return _Folder(listing, seen, unreadable, decoding, sources)


def _source(
    root: Path, files: tuple[tuple[str, int], ...], unreadable: dict[str, str], decoding: Decoding
) -> FolderSource:
    good = [(path, label) for path, label in files if path not in unreadable]
    labels = np.array([label for _, label in good], np.int32)
    return FolderSource(str(root), tuple(path for path, _ in good), labels, decoding)


def _check_sources(root: Path, sources: dict[str, FolderSource], listing: Listing) -> None:
    where, skipped = printable(str(root)), "".join(f"; {line}" for line in listing.skipped)[:150]
    counts = np.bincount(sources["train"].labels, minlength=len(listing.classes))
    if (counts == 0).any():
        bare = ", ".join(brief(listing.classes[i]) for i in np.flatnonzero(counts == 0)[:5])
        raise UserError(f"classes without a readable image to train on in {where}: {bare}{skipped}")
    empty = [split for split, source in sources.items() if not len(source)]
    if empty:
        raise UserError(f"no readable images in {' and '.join(empty)} of {where}{skipped}")
