"""Every file of a folder read once: what cannot be decoded, what of the rest a user should know, and a digest of it.

The result is remembered in the user's cache folder, so that only files that are new or have changed are read again.
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

from tqdm import tqdm

from vpns_jax import files
from vpns_jax.data.decode import UnreadableImageError, read_image
from vpns_jax.data.decoding import Decoding
from vpns_jax.data.text import printable, short
from vpns_jax.errors import UserError

_LOG = logging.getLogger(__name__)

# This many unreadable files are skipped without more ado, or this share if that is more.
MAX_UNREADABLE, MAX_UNREADABLE_SHARE = 10, 0.01
# Clocks of file systems are coarse (FAT's ticks every two seconds): a file that has just been written may be written
# again and bear the same time, so it is not remembered yet.
_SETTLED_NS = 2 * 10**9


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was seen in one file; see `decode.Decoded`.

    Attributes:
      stamp: changes when the file does.
      digest: of its bytes, hexadecimal; empty if they could not be read.
      reason: why it cannot be decoded; empty if it can.
      greys: its darkest and brightest 16-bit grey level.
      turned, mended, reduced: what is done to it, the first where that is asked for.
    """

    stamp: str
    digest: str
    reason: str = ""
    greys: tuple[int, int] | None = None
    turned: bool = False
    mended: bool = False
    reduced: bool = False


def survey(root: Path, paths: Sequence[str], *, max_megapixels: float, progress: bool = False) -> dict[str, Seen]:
    """Reads and decodes the files of a folder that are not known yet.

    Args:
      root: the folder.
      paths: of the files, below it; links are followed.
      max_megapixels: see `Decoding`.
      progress: whether to show a progress bar.

    Returns:
      What was seen, by path, in the order of `paths`.
    """
    decoding = Decoding(exif=True, max_megapixels=max_megapixels)
    known = _read_index(root)
    times = {path: _stamp(root / path) for path in paths}
    # What is readable depends on the limit. Nothing else that is asked for changes what is seen.
    stamps = {path: f"{stamp} {max_megapixels:g}" for path, (stamp, _) in times.items()}
    fresh = [path for path, stamp in stamps.items() if path not in known or known[path].stamp != stamp]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = pool.map(lambda path: _look(root / path, stamps[path], decoding), fresh)
        name = f"checking images in {printable(str(root))}"
        bar = tqdm(looks, desc=name, total=len(fresh), unit="file", disable=not progress)
        known |= dict(zip(fresh, bar, strict=True))
    seen = {path: known[path] for path in stamps}
    if fresh:
        settled = time.time_ns() - _SETTLED_NS
        _write_index(root, {path: one for path, one in seen.items() if times[path][1] < settled})
    return seen


def check_unreadable(root: Path, seen: dict[str, Seen]) -> dict[str, str]:
    """The unreadable files, each with the reason; they are logged.

    Raises:
      UserError: there are too many of them.
    """
    unreadable = {path: one.reason for path, one in seen.items() if one.reason}
    for path, reason in unreadable.items():
        _LOG.warning("skipped %s: %s", printable(str(root / path)), reason)
    limit = max(MAX_UNREADABLE, int(MAX_UNREADABLE_SHARE * len(seen)))
    if len(unreadable) > limit:
        reason, count = collections.Counter(unreadable.values()).most_common(1)[0]
        example = next(short(printable(path)) for path, one in unreadable.items() if one == reason)
        where = printable(str(root))
        raise UserError(
            f"{len(unreadable)} of {len(seen)} files in {where} are unreadable, and at most {limit} are skipped "
            f"({MAX_UNREADABLE}, or {MAX_UNREADABLE_SHARE:.0%} if more); {count} of them like {example}: {reason}"
        )
    return unreadable


def grey_range(seen: Iterable[Seen]) -> tuple[int, int] | None:
    """The darkest and the brightest 16-bit grey level of all files; None if there is none."""
    ranges = [one.greys for one in seen if one.greys is not None]
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None


def notes(seen: dict[str, Seen], decoding: Decoding) -> tuple[str, ...]:
    """What a user should know of how the readable files are read, a line for each thing."""
    deep = sum(one.greys is not None for one in seen.values())
    readable = sum(not one.reason for one in seen.values())
    found, (black, white) = grey_range(seen.values()), decoding.grey_range
    lines = []
    if found is not None:
        lines.append(
            f"{deep} of {readable} images in 16-bit greyscale, levels {found[0]} ... {found[1]}: "
            f"{black} becomes black and {white} white"
        )
    done = "turned upright, as" if decoding.exif else "left as stored, though"
    for what, paths in (
        (f"{done} the camera's note (EXIF) says", [path for path, one in seen.items() if one.turned]),
        ("read without their end marker, the last two bytes", [path for path, one in seen.items() if one.mended]),
        (
            f"above {decoding.max_megapixels:g} megapixels and decoded at a part of their size",
            [path for path, one in seen.items() if one.reduced],
        ),
    ):
        if paths:
            shown = ", ".join(short(printable(path)) for path in paths[:3])
            lines.append(f"{len(paths)} of {readable} images {what}: {shown}{', ...' if len(paths) > 3 else ''}")
    return tuple(lines)


def digest(*parts: bytes) -> str:
    """A digest of some bytes, 32 hexadecimal digits."""
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
        found = read_image(content, decoding)
    except UnreadableImageError as error:
        return Seen(stamp, summed, printable(str(error)))
    return Seen(stamp, summed, "", found.greys, found.turned, found.mended, found.reduced)


def _stamp(path: Path) -> tuple[str, int]:
    """What changes when the file does, and the time of its last change in nanoseconds.

    Besides size and time it holds the file's number: where two folders trade their names, or an archive gives all of
    its files the same time, the others may stay.
    """
    try:
        stat = path.stat()
    except OSError:
        # Never remembered: whatever is there next must be seen.
        return "", time.time_ns()
    stamp = f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}-{stat.st_ino}"
    return stamp, max(stat.st_mtime_ns, stat.st_ctime_ns)


def index_path(root: Path) -> Path:
    """The file that remembers what was seen in a folder."""
    return files.cache_directory() / "folders" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.index"


def _read_index(root: Path) -> dict[str, Seen]:
    """What is remembered; nothing where there is nothing, or the file is not as it was written."""
    try:
        summed, content = index_path(root).read_bytes().split(b"\n", 1)
        rows = json.loads(content) if summed.decode() == digest(content) else {}
        return {path: _seen(*row) for path, row in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _seen(stamp: str, summed: str, reason: str, greys: list[int] | None, *done: bool) -> Seen:
    return Seen(stamp, summed, reason, (greys[0], greys[1]) if greys else None, *done)


def _write_index(root: Path, seen: dict[str, Seen]) -> None:
    """Writes a digest, and on the lines below what it is of."""
    path, rows = index_path(root), {name: list(dataclasses.astuple(one)) for name, one in seen.items()}
    content = json.dumps(rows).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, digest(content).encode() + b"\n" + content)
    except OSError as error:
        _LOG.info("cannot remember which images are readable: %s", error)
