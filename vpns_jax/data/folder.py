"""Any folder of images: `folder:/path`, where a class is a sub-folder.

    /path/train/CLASS/...  and, where there are, /path/val/CLASS/...  /path/test/CLASS/...
    /path/CLASS/...        one heap: a fifth of each class becomes test, the same for every seed

Without test/, val/ serves as the test split, as ImageNet's does, and validation is held out of train; with neither,
train/ is treated as one heap. Images are found at any depth below their class. `layout.py` tells splits from classes.
"""

import dataclasses
import logging
from pathlib import Path

import numpy as np

from vpns_jax.data import duplicates
from vpns_jax.data.decode import UnreadableImageError, decode_image
from vpns_jax.data.examine import Finding, digest, examine
from vpns_jax.data.listing import Listing, list_folder
from vpns_jax.data.source import Original, stratified_holdout
from vpns_jax.data.text import printable, short
from vpns_jax.errors import UserError

_LOG = logging.getLogger(__name__)

PREFIX = "folder:"
# Share of each class that is test where the folder has no split of its own.
TEST_FRACTION = 0.2
_TEST_SEED = 0
# This many unreadable files are skipped without more ado, or this share if that is more.
MAX_UNREADABLE, MAX_UNREADABLE_SHARE = 10, 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
    """Image files `paths` [n], below `root`, with their labels int32 [n]."""

    root: str
    paths: tuple[str, ...]
    labels: np.ndarray

    def take(self, indices: np.ndarray) -> "FolderSource":
        """The images at `indices`, int [m], in that order."""
        return FolderSource(self.root, tuple(self.paths[i] for i in indices.tolist()), self.labels[indices])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        path = Path(self.root, self.paths[index])
        try:
            return decode_image(path.read_bytes()), int(self.labels[index])
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


def identity(name: str) -> str:
    """A digest of what is read of the folder: class names, and for each split the labels and bytes of its images.

    The same for a copy elsewhere, and whatever is passed over. See `registry.identity`.
    """
    found = _read(check(name), progress=False)
    parts = [f"{len(found.listing.classes)} classes\n", *(f"{name}\n" for name in found.listing.classes)]
    for split, source in sorted(found.sources.items()):
        parts.append(f"{split}: {len(source)}\n")
        for path, label in zip(source.paths, source.labels.tolist(), strict=True):
            parts.append(f"{label} {found.findings[path].digest}\n")
    return digest(*(part.encode() for part in parts))


def open_folder(name: str, *, progress: bool = False) -> Original:
    """The images below a folder, every one of which has been decoded once to see whether it can be.

    What cannot be read is named, counted and left out; what is passed over, and files with the same bytes where that
    harms, are told in `notes`.

    Args:
      name: `folder:/path`.
      progress: whether to show a progress bar.

    Raises:
      UserError: no such folder, one that `list_folder` refuses, a class without images, or too many unreadable files.
    """
    found = _read(check(name), progress=progress)
    skipped = tuple(f"{printable(path)}: {one.reason}" for path, one in found.findings.items() if one.reason)
    for line in skipped:
        _LOG.warning("skipped %s/%s", printable(str(found.root)), line)
    sources = found.sources
    if sources.keys() == {"train"}:
        train = sources["train"]
        kept, held = stratified_holdout(train.labels, TEST_FRACTION, seed=_TEST_SEED)
        sources = {"train": train.take(kept), "test": train.take(held)}
    test = sources.get("test", sources.get("val"))
    assert test is not None
    return Original(
        found.listing.classes,
        flip=True,
        train=sources["train"],
        test=test,
        val=sources.get("val") if "test" in sources else None,
        skipped=skipped,
        notes=(*found.listing.passed, *duplicates.told(found.members(sources))),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Folder:
    """What a folder holds: all that was found of each file, and the readable ones by split."""

    root: Path
    listing: Listing
    findings: dict[str, Finding]
    sources: dict[str, FolderSource]

    def members(self, sources: dict[str, FolderSource]) -> dict[str, list[duplicates.Member]]:
        """The images of `sources` with the digests of their bytes."""
        return {
            split: [
                duplicates.Member(path, label, self.findings[path].digest)
                for path, label in zip(source.paths, source.labels.tolist(), strict=True)
            ]
            for split, source in sources.items()
        }


def _read(root: Path, *, progress: bool) -> _Folder:
    listing = list_folder(root)
    findings = examine(root, [path for files in listing.files.values() for path, _ in files], progress=progress)
    _check_findings(root, findings)
    sources = {split: _source(root, files, findings) for split, files in listing.files.items()}
    _check_sources(root, sources, listing)
    return _Folder(root, listing, findings, sources)


def _check_findings(root: Path, findings: dict[str, Finding]) -> None:
    """Raises `UserError` if too many files are unreadable."""
    unreadable = [(path, found.reason) for path, found in findings.items() if found.reason]
    limit = max(MAX_UNREADABLE, int(MAX_UNREADABLE_SHARE * len(findings)))
    if len(unreadable) > limit:
        named = "; ".join(f"{short(printable(path))}: {reason[:40]}" for path, reason in unreadable[:3])
        raise UserError(
            f"{len(unreadable)} of {len(findings)} files in {printable(str(root))} are unreadable, and at most {limit} "
            f"are skipped ({MAX_UNREADABLE}, or {MAX_UNREADABLE_SHARE:.0%} if more); among them {named}"
        )


def _source(root: Path, files: tuple[tuple[str, int], ...], findings: dict[str, Finding]) -> FolderSource:
    good = [(path, label) for path, label in files if not findings[path].reason]
    labels = np.array([label for _, label in good], np.int32)
    return FolderSource(str(root), tuple(path for path, _ in good), labels)


def _check_sources(root: Path, sources: dict[str, FolderSource], listing: Listing) -> None:
    where, passed = printable(str(root)), "".join(f"; {line}" for line in listing.passed)[:150]
    counts = np.bincount(sources["train"].labels, minlength=len(listing.classes))
    if (counts == 0).any():
        bare = ", ".join(short(listing.classes[i]) for i in np.flatnonzero(counts == 0)[:5])
        raise UserError(f"classes without a readable image to train on in {where}: {bare}{passed}")
    empty = [split for split, source in sources.items() if not len(source)]
    if empty:
        raise UserError(f"no readable images in {' and '.join(empty)} of {where}{passed}")
