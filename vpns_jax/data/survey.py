"""Every file of a folder decoded once: what cannot be read, and what of the rest a user should know.

The result is remembered in the user's cache folder, so that only files that are new or have changed are read again.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vpns_jax import files
from vpns_jax.data.decode import UnreadableImageError, read_image
from vpns_jax.data.decoding import Decoding
from vpns_jax.errors import UserError

_LOG = logging.getLogger(__name__)

# This many unreadable files are skipped without more ado, or this share if that is more.
MAX_UNREADABLE, MAX_UNREADABLE_SHARE = 10, 0.01


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was seen in one file; see `decode.Decoded`.

    Attributes:
      stamp: changes when the file does.
      reason: why it cannot be decoded; empty if it can.
      greys: its darkest and brightest 16-bit grey level.
      turned, mended, reduced: what is done to it, the first where that is asked for.
    """

    stamp: str
    reason: str = ""
    greys: tuple[int, int] | None = None
    turned: bool = False
    mended: bool = False
    reduced: bool = False


def survey(root: Path, stamps: dict[str, str], *, max_megapixels: float, progress: bool = False) -> dict[str, Seen]:
    """Decodes the files of a folder that are not known yet.

    Args:
      root: the folder.
      stamps: for each path below it what changes when the file does.
      max_megapixels: see `Decoding`.
      progress: whether to show a progress bar.

    Returns:
      What was seen, by path, in the order of `stamps`.
    """
    # What is readable depends on the limit. Nothing else that is asked for changes what is seen.
    stamps = {path: f"{stamp} {max_megapixels:g}" for path, stamp in stamps.items()}
    decoding = Decoding(exif=True, max_megapixels=max_megapixels)
    known = _read_index(root)
    fresh = [path for path, stamp in stamps.items() if path not in known or known[path].stamp != stamp]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = pool.map(lambda path: _look(root / path, stamps[path], decoding), fresh)
        bar = tqdm(looks, desc=f"checking images in {root}", total=len(fresh), unit="file", disable=not progress)
        known |= dict(zip(fresh, bar, strict=True))
    seen = {path: known[path] for path in stamps}
    if fresh:
        _write_index(root, seen)
    return seen


def check_unreadable(root: Path, seen: dict[str, Seen]) -> dict[str, str]:
    """The unreadable files, each with the reason; they are logged.

    Raises:
      UserError: there are too many of them.
    """
    unreadable = {path: one.reason for path, one in seen.items() if one.reason}
    for path, reason in unreadable.items():
        _LOG.warning("skipped %s: %s", root / path, reason)
    limit = max(MAX_UNREADABLE, int(MAX_UNREADABLE_SHARE * len(seen)))
    if len(unreadable) > limit:
        reason, count = collections.Counter(unreadable.values()).most_common(1)[0]
        example = next(path for path, one in unreadable.items() if one == reason)
        raise UserError(
            f"{len(unreadable)} of {len(seen)} files in {root} are unreadable, and at most {limit} are skipped "
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
            lines.append(
                f"{len(paths)} of {readable} images {what}: {', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''}"
            )
    return tuple(lines)


def _look(path: Path, stamp: str, decoding: Decoding) -> Seen:
    try:
        found = read_image(path.read_bytes(), decoding)
    except (OSError, UnreadableImageError) as error:
        return Seen(stamp, str(error))
    return Seen(stamp, "", found.greys, found.turned, found.mended, found.reduced)


def index_path(root: Path) -> Path:
    """The file that remembers what was seen in a folder."""
    return files.cache_directory() / "folders" / f"{hashlib.sha256(str(root).encode()).hexdigest()[:16]}.json"


def _read_index(root: Path) -> dict[str, Seen]:
    """What is remembered; nothing where there is nothing, or the file is not as it was written."""
    try:
        found = json.loads(index_path(root).read_bytes())
        rows = found["files"] if found["digest"] == _digest(found["files"]) else {}
        return {path: _seen(*row) for path, row in rows.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _seen(stamp: str, reason: str, greys: list[int] | None, *done: bool) -> Seen:
    return Seen(stamp, reason, (greys[0], greys[1]) if greys else None, *done)


def _write_index(root: Path, seen: dict[str, Seen]) -> None:
    path, rows = index_path(root), {name: list(dataclasses.astuple(one)) for name, one in seen.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, json.dumps({"digest": _digest(rows), "files": rows}))
    except OSError as error:
        _LOG.info("cannot remember which images are readable: %s", error)


def _digest(rows: Any) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
