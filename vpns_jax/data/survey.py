"""Reads every file of a folder once: finds unreadable files, facts that a user should know, and digests.

The result is kept in the user's cache folder, so that only new and changed files are read again.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vpns_jax import files
from vpns_jax.data import heic
from vpns_jax.data.decode import UnreadableImageError, read_image
from vpns_jax.data.decoding import Decoding
from vpns_jax.data.text import brief, printable
from vpns_jax.errors import UserError

_LOG = logging.getLogger(__name__)

# The most unreadable files that are skipped: this number, or this share of all files if that is more.
MAX_UNREADABLE, MAX_UNREADABLE_SHARE = 10, 0.01
# File systems have coarse clocks (FAT's has steps of two seconds): a file that was just written may change again
# without a change of its time. So it is not put into the index yet.
SETTLED_NS = 2 * 10**9


@dataclasses.dataclass(frozen=True)
class Seen:
    """Facts about one file; see `decode.Decoded`.

    Attributes:
      stamp: a text that changes when the file changes.
      digest: the digest of its bytes, hexadecimal; empty if they could not be read.
      reason: why it cannot be decoded; empty if it can.
      greys: its darkest and brightest 16-bit gray level; None if it has no such levels.
      turned: whether EXIF's orientation turns it.
      mended: whether it is a JPEG without its end marker.
      reduced: whether it is too large, and decoded at a part of its size.
      color_peak: the brightest of its 8-bit levels if it has 16-bit color; else None.
    """

    stamp: str
    digest: str
    reason: str = ""
    greys: tuple[int, int] | None = None
    turned: bool = False
    mended: bool = False
    reduced: bool = False
    color_peak: int | None = None


def survey(root: Path, paths: Sequence[str], *, max_megapixels: float, progress: bool = False) -> dict[str, Seen]:
    """Reads and decodes the files of a folder that are not in the index yet.

    Args:
      root: the folder.
      paths: the files' paths below the folder; links are followed.
      max_megapixels: see `Decoding`.
      progress: whether to show a progress bar.

    Returns:
      Facts about all files by path, in the order of `paths`.

    Raises:
      UserError: $VPNS_JAX_CACHE is no valid path.
    """
    decoding = Decoding(exif=True, max_megapixels=max_megapixels)
    known = _read_index(root)
    times = {path: _stamp(root / path) for path in paths}
    # Whether a file is readable depends on this limit; other options do not change these facts.
    stamps = {path: f"{stamp} {max_megapixels:g}" for path, (stamp, _) in times.items()}
    fresh = [path for path, stamp in stamps.items() if path not in known or not _holds(known[path], stamp)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = pool.map(lambda path: _look(root / path, stamps[path], decoding), fresh)
        name = f"checking images in {printable(str(root))}"
        bar = tqdm(looks, desc=name, total=len(fresh), unit="file", disable=not progress)
        known |= dict(zip(fresh, bar, strict=True))
    seen = {path: known[path] for path in stamps}
    if fresh:
        settled = time.time_ns() - SETTLED_NS
        _write_index(root, {path: facts for path, facts in seen.items() if times[path][1] < settled})
    return seen


def _holds(known: Seen, stamp: str) -> bool:
    """Whether facts from the cache are valid: the file did not change, and no decoder for it was installed since."""
    return known.stamp == stamp and not (known.reason == heic.MISSING and heic.readable())


def check_unreadable(root: Path, seen: dict[str, Seen]) -> dict[str, str]:
    """The unreadable files, which are also logged.

    Args:
      root: the folder.
      seen: facts about its files.

    Returns:
      The reasons by path.

    Raises:
      UserError: there are too many unreadable files.
    """
    unreadable = {path: facts.reason for path, facts in seen.items() if facts.reason}
    for path, reason in unreadable.items():
        _LOG.warning("skipped %s: %s", printable(str(root / path)), reason)
    limit = max(MAX_UNREADABLE, int(MAX_UNREADABLE_SHARE * len(seen)))
    if len(unreadable) > limit:
        reason, count = collections.Counter(unreadable.values()).most_common(1)[0]
        example = next(brief(printable(path)) for path, why in unreadable.items() if why == reason)
        where = printable(str(root))
        raise UserError(
            f"{len(unreadable)} of {len(seen)} files in {where} are unreadable, and at most {limit} are skipped "
            f"({MAX_UNREADABLE}, or {MAX_UNREADABLE_SHARE:.0%} if more); {count} of them like {example}: {reason}"
        )
    return unreadable


def grey_range(seen: Iterable[Seen]) -> tuple[int, int] | None:
    """The darkest and the brightest 16-bit gray level of all files; None if no file has such levels."""
    ranges = [facts.greys for facts in seen if facts.greys is not None]
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None


def notes(seen: dict[str, Seen], decoding: Decoding) -> tuple[str, ...]:
    """Facts about the decoding of the readable files that a user should know.

    Args:
      seen: facts about all files, by path.
      decoding: how they are decoded.

    Returns:
      Lines.
    """
    deep = sum(facts.greys is not None for facts in seen.values())
    readable = sum(not facts.reason for facts in seen.values())
    levels, (black, white) = grey_range(seen.values()), decoding.grey_range
    lines = []
    if levels is not None:
        lines.append(
            f"{deep} of {readable} images in 16-bit grayscale, levels {levels[0]} ... {levels[1]}: "
            f"{black} becomes black and {white} white"
        )
    peaks = {path: facts.color_peak for path, facts in seen.items() if facts.color_peak is not None}
    peak = max(peaks.values(), default=0)
    done = "turned upright, as" if decoding.exif else "left as stored, though"
    for what, paths in (
        (f"in 16-bit color, of which the upper eight bits are read, up to level {peak} of 255", list(peaks)),
        (f"{done} EXIF's orientation says", [path for path, facts in seen.items() if facts.turned]),
        ("read without their end marker, the last two bytes", [path for path, facts in seen.items() if facts.mended]),
        (
            f"above {decoding.max_megapixels:g} megapixels and decoded at a part of their size",
            [path for path, facts in seen.items() if facts.reduced],
        ),
    ):
        if paths:
            shown = ", ".join(brief(printable(path)) for path in paths[:3])
            lines.append(f"{len(paths)} of {readable} images {what}: {shown}{', ...' if len(paths) > 3 else ''}")
    return tuple(lines)


def digest(*parts: bytes) -> str:
    """The digest of bytes, 32 hexadecimal digits."""
    summed = hashlib.blake2b(digest_size=16)
    for part in parts:
        summed.update(part)
    return summed.hexdigest()


def _look(path: Path, stamp: str, decoding: Decoding) -> Seen:
    try:
        content = path.read_bytes()
    except OSError as error:
        broken = path.is_symlink() and not path.exists()
        return Seen(stamp, "", "the link leads nowhere" if broken else str(error.strerror))
    summed = digest(content)
    try:
        image = read_image(content, decoding)
    except UnreadableImageError as error:
        return Seen(stamp, summed, printable(str(error)))
    return Seen(stamp, summed, "", image.greys, image.turned, image.mended, image.reduced, image.color_peak)


def _stamp(path: Path) -> tuple[str, int]:
    """A text that changes when the file changes, and the time of its last change in nanoseconds.

    The text holds size, times and the file's inode number. Size and times may stay the same when two folders exchange
    their names, or when an archive gives all of its files the same time.
    """
    try:
        stat = path.stat()
    except OSError:
        # Such a file never enters the index, so the next run reads it.
        return "", time.time_ns()
    stamp = f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}-{stat.st_ino}"
    return stamp, max(stat.st_mtime_ns, stat.st_ctime_ns)


def index_path(root: Path) -> Path:
    """The path of a folder's index, which keeps the facts about its files.

    Args:
      root: the folder.

    Returns:
      The path; the file need not exist.

    Raises:
      UserError: $VPNS_JAX_CACHE is no valid path.
    """
    return files.cache_directory() / "folders" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.index"


def _read_index(root: Path) -> dict[str, Seen]:
    """The facts in the index; none if there is no index or it is damaged."""
    try:
        summed, content = index_path(root).read_bytes().split(b"\n", 1)
        rows = json.loads(content) if summed.decode() == digest(content) else {}
        return {path: _seen(*row) for path, row in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _seen(stamp: str, summed: str, reason: str, greys: list[int] | None, *rest: Any) -> Seen:
    # An index of an older version has fewer fields; the error makes it be ignored.
    turned, mended, reduced, color_peak = rest
    return Seen(stamp, summed, reason, (greys[0], greys[1]) if greys else None, turned, mended, reduced, color_peak)


def _write_index(root: Path, seen: dict[str, Seen]) -> None:
    """Writes the index: a digest on the first line, then the content that it belongs to."""
    path, rows = index_path(root), {name: list(dataclasses.astuple(facts)) for name, facts in seen.items()}
    content = json.dumps(rows).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, digest(content).encode() + b"\n" + content)
    except (OSError, UserError) as error:
        _LOG.info("cannot remember which images are readable: %s", error)
