"""Each file of a folder, read once: whether it can be decoded, and a digest of its bytes.

What was found is remembered in the user's cache folder, so that only files that are new or have changed are read again.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from vpns_jax import files
from vpns_jax.data.decode import UnreadableImageError, decode_image
from vpns_jax.data.text import printable

_LOG = logging.getLogger(__name__)

# Clocks of file systems are coarse (FAT's ticks every two seconds): a file that has just been written may be written
# again and bear the same time, so it is not remembered yet.
_SETTLED_NS = 2 * 10**9
_DIGEST_BYTES = 16


@dataclasses.dataclass(frozen=True)
class Finding:
    """What reading a file found.

    Attributes:
      digest: of its bytes, hexadecimal; empty if they could not be read.
      reason: why it cannot be decoded; empty if it can.
    """

    digest: str
    reason: str


def examine(root: Path, paths: Sequence[str], *, progress: bool = False) -> dict[str, Finding]:
    """Reads files, unless they have been read before and have not changed since.

    Args:
      root: a folder.
      paths: of files below it; links are followed.
      progress: whether to show a progress bar.

    Returns:
      What was found, by path.
    """
    index = _read_index(root)
    stamps = {path: _stamp(root / path) for path in paths}
    found = {path: index[path][1] for path in paths if path in index and index[path][0] == stamps[path]}
    fresh = [path for path in paths if path not in found]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda path: _examine(root / path), fresh)
        name = f"checking images in {printable(str(root))}"
        bar = tqdm(results, desc=name, total=len(fresh), unit="file", disable=not progress)
        found |= dict(zip(fresh, bar, strict=True))
    if fresh:
        settled = time.time_ns() - _SETTLED_NS
        kept = {path: stamp for path, stamp in stamps.items() if stamp and max(stamp[1:3]) < settled}
        _write_index(root, {path: (stamp, found[path]) for path, stamp in kept.items()})
    return {path: found[path] for path in paths}


def digest(*parts: bytes) -> str:
    """A digest of some bytes, hexadecimal."""
    summed = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        summed.update(part)
    return summed.hexdigest()


def _examine(path: Path) -> Finding:
    try:
        content = path.read_bytes()
    except OSError as error:
        return Finding("", "the link leads nowhere" if path.is_symlink() and not path.exists() else str(error.strerror))
    try:
        decode_image(content)
    except UnreadableImageError as error:
        return Finding(digest(content), printable(str(error)))
    return Finding(digest(content), "")


# Size, times of change of content and of the entry, and the file's number: one or the other changes with the file,
# also where two folders have traded their names, or an archive gave all of its files the same time.
_Stamp = tuple[int, int, int, int]
_Index = dict[str, tuple[_Stamp, Finding]]


def _stamp(path: Path) -> _Stamp | None:
    """Changes when the file does; None if there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _index_path(root: Path) -> Path:
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    return files.cache_directory() / "folders" / f"{name}.index"


def _read_index(root: Path) -> _Index:
    """What is remembered of a folder; empty if that is nothing, or damaged."""
    try:
        summed, content = _index_path(root).read_bytes().split(b"\n", 1)
        if summed.decode() != digest(content):
            return {}
        return {path: (tuple(stamp), Finding(*finding)) for path, (stamp, finding) in json.loads(content).items()}
    except (OSError, ValueError):
        return {}


def _write_index(root: Path, index: _Index) -> None:
    """Remembers: a digest on the first line, and below it what it is of."""
    path = _index_path(root)
    entries = {name: (stamp, dataclasses.astuple(finding)) for name, (stamp, finding) in index.items()}
    content = json.dumps(entries).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, digest(content).encode() + b"\n" + content)
    except OSError as error:
        _LOG.info("cannot remember which images are readable: %s", error)
