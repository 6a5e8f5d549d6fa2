"""Any folder of images: `folder:/path`, where a class is a sub-folder.

    /path/train/CLASS/...  and, where there are, /path/val/CLASS/...  /path/test/CLASS/...
    /path/CLASS/...        one heap: a fifth of each class becomes test, the same for every seed

Without test/, val/ serves as the test split, as ImageNet's does, and validation is held out of train; with neither,
train/ is treated as one heap. Images are found at any depth below their class. `layout.py` tells splits from classes.
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
from vpns_jax.data.text import printable, short
from vpns_jax.errors import UserError

PREFIX = "folder:"
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

    def take(self, indices: np.ndarray) -> "FolderSource":
        """The images at `indices`, int [m], in that order."""
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
            raise UserError(f"{printable(str(path))} could be read before and cannot now: {reason}") from error


def check(name: str) -> Path:
    """The path in `folder:/path`; raises `UserError` unless it is a folder."""
    try:
        path = Path(name.removeprefix(PREFIX)).expanduser()
        if name != PREFIX and path.is_dir():
            return path.resolve()
    # A home of nobody's, a name longer than there can be, a link that leads back to itself.
    except (OSError, RuntimeError):
        pass
    where = name.removeprefix(PREFIX)
    shown = printable(where) if len(where) < 200 else short(printable(where))
    raise UserError(f"data set {PREFIX}{shown!r} is not a folder; write {PREFIX}/path/to/images")


def contents(name: str, options: DecodeOptions = DEFAULT) -> Iterator[bytes]:
    """What is read of the folder: class names, for each split the labels and the digests of its images, and how.

    The same of a copy elsewhere, and whatever is passed over. Errors are `open_folder`'s.
    """
    found = _read(check(name), options, progress=False)
    yield json.dumps(found.decoding.to_json()).encode()
    yield f"{len(found.listing.classes)} classes\n".encode()
    yield from (f"{name}\n".encode() for name in found.listing.classes)
    for split, source in sorted(found.sources.items()):
        yield f"{split}: {len(source)}\n".encode()
        yield from (f"{one.label} {one.digest}\n".encode() for one in found.members(source))


def open_folder(name: str, options: DecodeOptions = DEFAULT, *, progress: bool = False) -> Original:
    """The images below a folder, every one of which has been decoded once to see whether it can be.

    What cannot be read is named, counted and left out; `survey` remembers the result. What is passed over, and files
    with the same bytes where that harms, are told in `notes`.

    Args:
      name: `folder:/path`.
      options: how they are decoded; cameras' notes on orientation are followed unless it says otherwise.
      progress: whether to show a progress bar.

    Raises:
      UserError: no such folder, one that `list_folder` refuses, a class without images, or too many unreadable files.
    """
    found = _read(check(name), options, progress=progress)
    sources = found.sources
    if sources.keys() == {"train"}:
        train = sources["train"]
        kept, held = stratified_holdout(train.labels, TEST_FRACTION, seed=_TEST_SEED)
        sources = {"train": train.take(kept), "test": train.take(held)}
    test = sources.get("test", sources.get("val"))
    assert test is not None
    copies = duplicates.told({split: found.members(source) for split, source in sources.items()})
    return Original(
        found.listing.classes,
        flip=True,
        train=sources["train"],
        test=test,
        val=sources.get("val") if "test" in sources else None,
        skipped=tuple(f"{printable(path)}: {reason}" for path, reason in found.unreadable.items()),
        notes=(*survey.notes(found.seen, found.decoding), *found.listing.passed, *copies),
        decoding=found.decoding,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Folder:
    """What a folder holds: what was seen in each file, which are unreadable and why, and the readable ones by split."""

    listing: Listing
    seen: dict[str, survey.Seen]
    unreadable: dict[str, str]
    decoding: Decoding
    sources: dict[str, FolderSource]

    def members(self, source: FolderSource) -> list[duplicates.Member]:
        """The images of `source` with the digests of their bytes."""
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
    where, passed = printable(str(root)), "".join(f"; {line}" for line in listing.passed)[:150]
    counts = np.bincount(sources["train"].labels, minlength=len(listing.classes))
    if (counts == 0).any():
        bare = ", ".join(short(listing.classes[i]) for i in np.flatnonzero(counts == 0)[:5])
        raise UserError(f"classes without a readable image to train on in {where}: {bare}{passed}")
    empty = [split for split, source in sources.items() if not len(source)]
    if empty:
        raise UserError(f"no readable images in {' and '.join(empty)} of {where}{passed}")
